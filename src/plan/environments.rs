//! From `environments:` of a pipeline to the environments of its definition.

use crate::manifest::document::Document;
use crate::manifest::located::Located;
use crate::manifest::{Broken, Build, Diagnostics, Family, Member};

use super::{Environment, Server};

/// The environments that the ids and globs name, sorted by id. A pattern that names none is reported.
pub(super) fn select(
    document: &Document,
    patterns: &[Located<String>],
    families: &[Family],
    diagnostics: &mut Diagnostics,
) -> Vec<Environment> {
    let all: Vec<(&Family, &Member)> =
        families.iter().flat_map(|family| family.members.iter().map(move |member| (family, member))).collect();
    let name = |member: &Member| member.simulation.environment.to_string();
    let mut selected: Vec<Environment> = Vec::new();
    for pattern in patterns {
        let matching: Vec<_> = all.iter().filter(|(_, member)| matches(&pattern.value, &name(member))).collect();
        if matching.is_empty() {
            let message = format!("no environment is called `{}`", pattern.value);
            let globs = families.iter().map(|family| format!("{}/*", family.name));
            let names: Vec<String> = all.iter().map(|(_, member)| name(member)).chain(globs).collect();
            let problem = document.error(pattern.at, message);
            diagnostics.push(
                match crate::manifest::suggest::closest(&pattern.value, names.iter().map(String::as_str)) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem.help("every task of a manifest in `environments/` is one: `family/task`"),
                },
            );
        }
        for (family, member) in matching {
            if !selected.iter().any(|known| known.simulation.environment == member.simulation.environment) {
                selected.push(environment(family, member));
            }
        }
    }
    selected.sort_by(|a, b| a.simulation.environment.cmp(&b.simulation.environment));
    selected
}

/// A manifest that is broken is an error for a pipeline that uses its family, and a warning for the others.
pub(super) fn tell_of_broken(patterns: &[Located<String>], broken: Vec<Broken>, found: &mut Diagnostics) {
    for Broken { name, problems } in broken {
        let is_used =
            patterns.iter().any(|pattern| matches(pattern.value.split('/').next().unwrap_or_default(), &name));
        for problem in problems.iter().cloned() {
            found.push(if is_used { problem } else { problem.warning() });
        }
    }
}

/// An environment as a definition holds it.
pub(crate) fn environment(family: &Family, member: &Member) -> Environment {
    let nothing = Build { context: String::new(), requirements: String::new(), digest: String::new() };
    let build = family.build.clone().unwrap_or(nothing);
    Environment {
        simulation: member.simulation.clone(),
        server: Server {
            protocol: family.protocol.to_owned(),
            workers: family.workers,
            slots_per_worker: family.slots_per_worker,
            context: build.context,
            requirements: build.requirements,
            build_digest: build.digest,
            image: family.image.clone(),
            recycle_after: family.recycle_after,
            resources: family.resources.clone(),
        },
        action_timeout_ms: member.action_timeout_ms,
        reset_timeout_ms: member.reset_timeout_ms,
    }
}

/// Whether `text` is what `pattern` describes: `*` stands for any characters within one half of an id, `?` for one.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Which prefixes of the pattern describe the text so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    let skip_stars = |reached: &mut Vec<bool>| {
        for index in 0..pattern.len() {
            reached[index + 1] |= reached[index] && pattern[index] == '*';
        }
    };
    skip_stars(&mut reached);
    for character in text {
        let mut next = vec![false; pattern.len() + 1];
        for (index, wanted) in pattern.iter().enumerate().filter(|(index, _)| reached[*index]) {
            match wanted {
                '*' if character != '/' => next[index] = true,
                '?' if character != '/' => next[index + 1] = true,
                wanted if *wanted == character => next[index + 1] = true,
                _ => {}
            }
        }
        skip_stars(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stay_within_one_half() {
        for (pattern, text, expected) in [
            ("metaworld/*", "metaworld/push-v3", true),
            ("*/push-v?", "metaworld/push-v3", true),
            ("metaworld/push-v3", "metaworld/push-v3", true),
            ("*", "metaworld/push-v3", false),
            ("*/*", "metaworld/push-v3", true),
            ("metaworld/*-v2", "metaworld/push-v3", false),
            ("metaworld/p**3", "metaworld/push-v3", true),
            ("", "a/b", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        // A pattern full of stars takes no longer than its length times the text's.
        assert!(!matches(&"*a".repeat(200), &format!("x/{}", "a".repeat(60))));
    }
}
