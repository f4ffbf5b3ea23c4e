//! Database URLs as people write them, made into what the library reads. Pure; no reason repeats the URL, which may hold a
//! password.

use std::fmt::Write;

/// What to write where the end of a password cannot be told.
const AMBIGUOUS: &str = "its password or name holds `@`, `/`, `#` or `?`, so where it ends is unclear: \
    write %40 for `@`, %2F for `/`, %23 for `#` and %3F for `?`";

/// The URL without the driver of another program, and with user and password encoded.
pub(super) fn plain(url: &str) -> Result<String, &'static str> {
    let rest = without_scheme(url).ok_or("it does not start with `postgresql://`")?;
    let (user, place) = split(rest)?;
    Ok(match user {
        None => format!("postgresql://{place}"),
        Some(user) => {
            let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
            let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
            format!("postgresql://{}{password}@{place}", encoded(name))
        }
    })
}

/// What comes after `postgresql://`, `postgres://`, or the same with a driver, as `postgresql+asyncpg://`.
fn without_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let (kind, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_ours = ["postgresql", "postgres"].contains(&kind) && driver.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_ours.then_some(rest)
}

/// User and password, and the place after the `@`.
fn split(rest: &str) -> Result<(Option<&str>, &str), &'static str> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    // `a=b@c` may be a parameter; `b@c` is the end of a password.
    let is_parameter = query.split_once('@').is_none_or(|(before, _)| before.contains('='));
    if let Some((user, host)) = authority.rsplit_once('@')
        && !host.is_empty()
        && !path.contains(['@', '#'])
        && is_parameter
    {
        return Ok((Some(user), &rest[end - host.len()..]));
    }
    // `robo:pa/ss@host`: what looks like a port is no number, so the password goes on.
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_cut = match authority.rsplit_once('@') {
        Some((_, host)) => host.is_empty(),
        None => !authority.starts_with('[') && authority.split_once(':').is_some_and(|(_, port)| !is_port(port)),
    };
    match rest.rsplit_once('@') {
        Some((user, place)) if is_cut && is_place(place) => Ok((Some(user), place)),
        _ if path.contains(['@', '#']) || !is_parameter => Err(AMBIGUOUS),
        _ => Ok((None, rest)),
    }
}

/// A host, and what may come after it.
fn is_place(place: &str) -> bool {
    let host = place.split(['/', '?']).next().unwrap_or_default();
    !host.is_empty() && !place.contains('#')
}

/// The same text with what would end it encoded. What is encoded already stays.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for letter in text.chars() {
        if "/?#@[]: ".contains(letter) {
            let _ = write!(encoded, "%{:02X}", u32::from(letter));
        } else {
            encoded.push(letter);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_read_as_it_was_meant() {
        for (written, meant) in [
            ("postgres://h/db", "postgresql://h/db"),
            ("postgresql+asyncpg://u:p@h/db", "postgresql://u:p@h/db"),
            ("postgresql://u:p@[::1]:5432/db", "postgresql://u:p@[::1]:5432/db"),
            ("postgresql://[::1]/db", "postgresql://[::1]/db"),
            ("postgresql://u:a/b@h/db", "postgresql://u:a%2Fb@h/db"),
            ("postgresql://u:a#b@h:5432/db", "postgresql://u:a%23b@h:5432/db"),
            ("postgresql://u:a@b@h/db", "postgresql://u:a%40b@h/db"),
            ("postgresql://u:a%2Fb@h/db", "postgresql://u:a%2Fb@h/db"),
            ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
            ("postgresql://h/db?application_name=a@b", "postgresql://h/db?application_name=a@b"),
            ("postgresql://u@h/db?application_name=a@b", "postgresql://u@h/db?application_name=a@b"),
        ] {
            assert_eq!(plain(written).as_deref(), Ok(meant), "{written}");
        }
        for unclear in ["postgresql://u:1/2@h/db", "postgresql://u:a@b/c@h/db", "postgresql://u:p@h/db#x"] {
            assert_eq!(plain(unclear), Err(AMBIGUOUS), "{unclear}");
        }
        assert!(plain("mysql://h/db").is_err() && plain("h/db").is_err());
    }

    proptest! {
        #[test]
        fn a_raw_password_arrives_or_is_refused(password in "[a-z][!-~&&[^%=]]{0,12}") {
            if let Ok(url) = plain(&format!("postgresql://robo:{password}@db.example:5432/robo")) {
                let options = sqlx::postgres::PgConnectOptions::from_str(&url);
                let options = options.map_err(|error| TestCaseError::fail(format!("{url}: {error}")))?;
                prop_assert_eq!(options.get_host(), "db.example", "{}", url);
            }
        }
    }
}
