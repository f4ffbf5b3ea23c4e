//! Who may pass: what every request goes through before anything answers it.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};

use super::{caller::Operator, keys::Keys, problem::Problem, token::Token};

/// Where the client's address is put by whoever accepts the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) std::net::SocketAddr);

/// What decides.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) keys: Keys,
}

/// Let a request pass, with what is known of who sends it, or answer it.
pub(super) async fn pass(State(guard): State<Guard>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let shown = shown(request.headers());
    if let Some(shown) = shown {
        let token = shown.ok_or_else(Problem::wrong_key)?;
        let key = guard.keys.holder(&token).await?;
        let client =
            request.extensions().get::<Peer>().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip());
        request.extensions_mut().insert(Operator { key: key.id, name: key.name, client });
    }
    Ok(next.run(request).await)
}

/// The key that a request shows, if it shows one; nothing inside when that can be none. Other schemes of authentication are those
/// of proxies before us.
fn shown(headers: &HeaderMap) -> Option<Option<Token>> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        scheme.eq_ignore_ascii_case(b"bearer").then_some(rest)
    });
    let text = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))?;
    Some(std::str::from_utf8(text).ok().and_then(|text| Token::parse(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_in_one_of_two_headers() {
        let token = Token::random();
        let of = |name: &'static str, value: String| {
            shown(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        for value in ["Bearer ", "bearer ", "BEARER  "] {
            assert_eq!(of("authorization", format!("{value}{}", token.expose())), Some(Some(token.clone())));
        }
        assert_eq!(of("x-api-key", token.expose().to_owned()), Some(Some(token.clone())));
        assert_eq!(of("authorization", "Bearer robo_1".into()), Some(None));
        assert_eq!(of("authorization", "Bearer".into()), Some(None), "a variable that was empty");
        assert_eq!(of("authorization", "Basic cm9ibzpyb2Jv".into()), None);
        assert_eq!(of("authorization", "é".into()), None);
        assert_eq!(shown(&HeaderMap::new()), None);
    }
}
