//! Checks what a manifest says of channels: with `dialect: canonical` they name every number each way, and without it nothing
//! has a channel.

use std::collections::BTreeSet;

use super::adapter::{LARGEST_SIZE, Parts};
use super::simulation::{Action, ActionKind, Dialect, Observation};

const DIALECT: &str = "write `dialect: canonical`, or remove this key";

impl Parts<'_> {
    pub(super) fn observed_channels(&mut self, observation: &Observation, dialect: Dialect) {
        let mut names = BTreeSet::new();
        for (index, part) in observation.state.iter().enumerate() {
            let index = index.to_string();
            let at = ["observation", "state", &index];
            if part.pose.is_some() && (part.slice.is_some() || !part.path.is_empty()) {
                let message = "a part is a `pose` or a part of the observation, not both";
                self.refuse(&at, message, Some("remove `path` and `slice`, or `pose`".to_owned()));
            }
            self.factors(&at, [part.scale, part.offset]);
            if dialect == Dialect::Native {
                if part.channel.is_some() || part.scale.is_some() || part.offset.is_some() {
                    let message = "`channel`, `scale` and `offset` belong to `dialect: canonical`";
                    self.refuse(&at, message, Some(DIALECT.to_owned()));
                }
                continue;
            }
            match &part.channel {
                None => self.refuse(&at, "`channel` is missing", Some("name it, as `channel: ee_pos`".to_owned())),
                Some(name) if !names.insert(name) => {
                    self.refuse(&at, format!("two parts have the channel `{name}`"), None);
                }
                Some(name) => self.name(&at, name),
            }
            if part.size().is_none() {
                let message = "a part with a channel needs a `slice` or a `pose`: its size is part of the dialect";
                self.refuse(&at, message, None);
            }
        }
        if dialect == Dialect::Canonical && !observation.encodings.is_empty() {
            let message = "`encodings` has no effect with `dialect: canonical`, which has one form of images";
            self.refuse(&["observation", "encodings"], message, Some("remove this key".to_owned()));
        }
    }

    pub(super) fn action_channels(&mut self, action: &Action, dialect: Dialect) {
        let at = ["action", "channels"];
        if dialect == Dialect::Native {
            if !action.channels.is_empty() {
                self.refuse(&at, "`channels` belongs to `dialect: canonical`", Some(DIALECT.to_owned()));
            }
            return;
        }
        if action.kind == ActionKind::Discrete {
            let message = "`dialect: canonical` has no form for `kind: discrete`";
            self.refuse(&["action", "kind"], message, Some("write `dialect: native`".to_owned()));
            return;
        }
        if action.channels.is_empty() {
            let help = "as `channels: [{ channel: ee_twist, size: 6 }]`";
            self.refuse(&["action"], "`channels` is missing", Some(help.to_owned()));
            return;
        }
        let (mut names, mut taken) = (BTreeSet::new(), 0_u64);
        for (index, channel) in action.channels.iter().enumerate() {
            let index = index.to_string();
            let at = ["action", "channels", &index];
            self.name(&at, &channel.channel);
            self.factors(&at, [channel.scale, channel.offset]);
            if !names.insert(&channel.channel) {
                self.refuse(&at, format!("the channel `{}` comes twice", channel.channel), None);
            }
            if !(1..=LARGEST_SIZE).contains(&channel.size) {
                self.refuse(&at, format!("`size` must be from 1 to {LARGEST_SIZE}"), None);
            }
            let [start, end] = channel.taken();
            if start >= end || end > channel.size {
                let message = format!("a slice `[start, end]` needs start < end <= size, not [{start}, {end}]");
                self.refuse(&at, message, None);
            }
            taken += u64::from(end.saturating_sub(start));
        }
        if taken != u64::from(action.size) {
            let message = format!("the channels give {taken} numbers, and the action has `size: {}`", action.size);
            self.refuse(&at, message, None);
        }
    }

    fn factors(&mut self, at: &[&str], factors: [Option<f64>; 2]) {
        if factors.into_iter().flatten().any(|factor| !factor.is_finite()) {
            self.refuse(at, "`scale` and `offset` must be finite", None);
        }
    }

    fn name(&mut self, at: &[&str], name: &str) {
        let is_fine = name.len() <= 64 && name.starts_with(|first: char| first.is_ascii_lowercase());
        let is_word = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if !is_fine || !name.chars().all(is_word) {
            let message = format!("`{name}` is not the name of a channel (a-z, 0-9 and `_`, starting with a letter)");
            self.refuse(at, message, None);
        }
    }
}
