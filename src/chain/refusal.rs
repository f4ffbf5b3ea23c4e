//! Why the chain does not take a call, in words with what to do about it. A node's pool says it as a number, a block as the
//! name of an error; both are looked up in one table. What is not in it is passed on as it was said.

use std::fmt;

use crate::cycle::plain_text;

/// Why a call was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As the node or the runtime said it.
    said: String,
    reason: Option<Reason>,
}

/// A reason that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too little stake.
    Stake,
    /// No such subnet.
    Subnet,
    /// A rate limit.
    TooSoon,
    /// The hotkey has no uid there.
    Unregistered,
    /// The coldkey is being exchanged.
    Swapping,
    /// Everything that the pool has no number for.
    BadRequest,
    /// Another call of the hotkey waits or was faster.
    Waiting,
    /// The node's pool takes no more.
    Full,
    /// The account cannot pay.
    Fees,
    /// Signed for a block that is too long ago, or for another chain or runtime.
    Outdated,
    /// No validator.
    Permit,
    /// Weights have to be committed first.
    CommitReveal,
    /// Weights need not be committed first.
    NoCommitReveal,
    /// A round of the beacon that has passed or never comes.
    Round,
    /// Commits that wait for their round.
    Unrevealed,
    /// The subnet wants a newer validator.
    VersionKey,
    /// Too few weights.
    TooFew,
    /// One weight too big.
    TooBig,
    /// Uids twice, unknown or not as many as values.
    Uids,
    /// More text than a miner may write.
    Space,
}

/// Numbers of the pool, names of errors, the reason, what it means, what to do.
type Row = (&'static [u8], &'static [&'static str], Reason, &'static str, &'static str);

const TABLE: [Row; 20] = [
    (
        &[1],
        &["NotEnoughStakeToSetWeights", "StakeAmountTooLow", "AmountTooLow"],
        Reason::Stake,
        "the hotkey has too little stake to set weights",
        "stake more to the hotkey; the subnet's least is `WeightsMinStake`",
    ),
    (
        &[3],
        &["SubnetNotExists", "SubNetworkDoesNotExist", "MechanismDoesNotExist"],
        Reason::Subnet,
        "there is no such subnet on this chain",
        "check --netuid and --network",
    ),
    (
        &[6],
        &["SettingWeightsTooFast", "CommittingWeightsTooFast", "CommitmentSetRateLimitExceeded"],
        Reason::TooSoon,
        "too soon after the last time: the chain's rate limit",
        "wait: as a rule 100 blocks, 20 minutes, after the last time; for weights the subnet's `WeightsSetRateLimit` says it",
    ),
    (
        &[10, 19, 20],
        &["HotKeyNotRegisteredInSubNet", "HotKeyNotRegisteredInNetwork", "UidNotFound", "AccountNotAllowedCommit"],
        Reason::Unregistered,
        "the hotkey is not registered on this subnet",
        "register it, or name the right wallet with --wallet-name and --hotkey-name",
    ),
    (
        &[0, 21],
        &["ColdkeySwapAnnounced", "ColdkeyInSwapSchedule", "ColdkeySwapDisputed"],
        Reason::Swapping,
        "the hotkey's coldkey is being exchanged for another",
        "wait until the exchange is over",
    ),
    (
        &[255],
        &[],
        Reason::BadRequest,
        "the chain does not say why: a condition without a number of its own",
        "check that the hotkey has a validator permit, that commit-reveal is as you think, and the subnet's limits for weights",
    ),
    (
        &[],
        &["PriorityTooLow", "AlreadyImported", "Future", "Stale"],
        Reason::Waiting,
        "another call of this hotkey waits to be included or has just been",
        "wait a few blocks and look what is on the chain; two programs must not use one hotkey",
    ),
    (
        &[],
        &["ImmediatelyDropped", "TemporarilyBanned"],
        Reason::Full,
        "the node takes no more calls, or not this one for now",
        "try again in some minutes, or name another node with --network",
    ),
    (
        &[2],
        &["Payment", "NotEnoughBalanceToStake", "FundsUnavailable"],
        Reason::Fees,
        "the account cannot pay for the call",
        "send it a little TAO",
    ),
    (
        &[],
        &["AncientBirthBlock", "BadProof"],
        Reason::Outdated,
        "the signature is too old, or for another chain or runtime than the node's",
        "try again; if it stays so, the node is on another chain or far behind: name another with --network",
    ),
    (
        &[],
        &["NeuronNoValidatorPermit"],
        Reason::Permit,
        "the hotkey has no validator permit",
        "stake more to the hotkey and wait for the next tempo: the subnet gives permits to those with the most stake",
    ),
    (
        &[],
        &["CommitRevealEnabled"],
        Reason::CommitReveal,
        "the subnet takes weights only as commits that are revealed later",
        "commit them: `robo validate` does so by itself when commit-reveal is on",
    ),
    (
        &[],
        &["CommitRevealDisabled"],
        Reason::NoCommitReveal,
        "the subnet takes weights only in the open",
        "set them: `robo validate` does so by itself when commit-reveal is off",
    ),
    (
        &[15],
        &["InvalidRevealRound", "IncorrectCommitRevealVersion"],
        Reason::Round,
        "the chain does not take this round or this version of a commit",
        "check the machine's clock; a newer runtime may need a newer robo",
    ),
    (
        &[],
        &["TooManyUnrevealedCommits"],
        Reason::Unrevealed,
        "too many commits of this hotkey wait for their round",
        "wait until one is revealed",
    ),
    (
        &[],
        &["IncorrectWeightVersionKey"],
        Reason::VersionKey,
        "the version key is lower than the subnet's",
        "the subnet's owner has announced a newer validator: update, or give its `WeightsVersionKey`",
    ),
    (
        &[],
        &["WeightVecLengthIsLow"],
        Reason::TooFew,
        "fewer weights than the subnet's `MinAllowedWeights`",
        "more miners must have a weight; the pipeline that publishes decides it",
    ),
    (
        &[],
        &["MaxWeightExceeded"],
        Reason::TooBig,
        "one weight is above the subnet's `MaxWeightsLimit`",
        "the pipeline that publishes must spread the weights more",
    ),
    (
        &[18],
        &[
            "DuplicateUids",
            "UidVecContainInvalidOne",
            "UidsLengthExceedUidsInSubNet",
            "WeightVecNotEqualSize",
            "InputLengthsUnequal",
        ],
        Reason::Uids,
        "the uids are not those of the subnet, or not as many as the weights",
        "read the subnet again and try again: somebody may have been replaced meanwhile",
    ),
    (
        &[],
        &["SpaceLimitExceeded", "TooManyFieldsInCommitmentInfo"],
        Reason::Space,
        "the hotkey has written as much as it may for now",
        "wait for the next tempo of the subnet and commit again, seldom and briefly",
    ),
];

/// How nodes word what has neither a number of subtensor's own nor a name.
const WORDS: [(&str, &str); 8] = [
    ("inability to pay some fees", "Payment"),
    ("valid in the future", "Future"),
    ("is outdated", "Stale"),
    ("bad signature", "BadProof"),
    ("ancient birth block", "AncientBirthBlock"),
    ("priority is too low", "PriorityTooLow"),
    ("already imported", "AlreadyImported"),
    ("temporarily banned", "TemporarilyBanned"),
];

/// What the pool's error code of JSON-RPC stands for, where there is no more to go by.
const CODES: [(i32, &str); 4] =
    [(1012, "TemporarilyBanned"), (1013, "AlreadyImported"), (1014, "PriorityTooLow"), (1016, "ImmediatelyDropped")];

impl Refusal {
    /// As a node's pool says it, in an error of JSON-RPC: its code, and its message with what comes with it.
    pub(super) fn by_pool(code: i32, text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let reason = custom(&lower).map_or_else(
            || {
                let words = WORDS.iter().find(|(words, _)| lower.contains(words)).map(|(_, name)| *name);
                let code = CODES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
                words.or(code).or_else(|| variant(&lower)).and_then(by_name)
            },
            |number| TABLE.iter().find(|row| row.0.contains(&number)).map(|row| row.2),
        );
        Self { said: plain_text(text), reason }
    }

    /// As the runtime names the error of a call in a block: `Pallet::Error`, or an error of no pallet.
    pub(super) fn by_runtime(name: &str) -> Self {
        Self { said: plain_text(name), reason: by_name(name.rsplit("::").next().unwrap_or(name)) }
    }

    /// The reason, if it is one that is known here.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// What can be done about it.
    pub fn remedy(&self) -> &'static str {
        self.row().map_or("look the words up in the documentation of subtensor", |row| row.4)
    }

    fn row(&self) -> Option<&'static Row> {
        TABLE.iter().find(|row| Some(row.2) == self.reason)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => write!(f, "{} (`{}`)", row.3, self.said),
            None => write!(f, "`{}`", self.said),
        }
    }
}

fn by_name(name: &str) -> Option<Reason> {
    TABLE.iter().find(|row| row.1.contains(&name)).map(|row| row.2)
}

/// The number in `Custom error: 6`, `{"invalid":{"custom":6}}` and the like.
fn custom(lower: &str) -> Option<u8> {
    let (_, rest) = lower.split_once("custom")?;
    let digits = rest.trim_start_matches("error").trim_start_matches(|c: char| c.is_ascii_punctuation() || c == ' ');
    let digits = digits.trim_start_matches("error").trim_start_matches(|c: char| c.is_ascii_punctuation() || c == ' ');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The name in `{"invalid":{"stale":null}}`, as some nodes write it.
fn variant(lower: &str) -> Option<&'static str> {
    ["Payment", "Future", "Stale", "BadProof", "AncientBirthBlock"]
        .into_iter()
        .find(|name| lower.contains(&format!("\"{}\"", name.to_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_says_numbers_in_several_ways() {
        let reason = |code, text| Refusal::by_pool(code, text).reason();
        assert_eq!(reason(1010, "Invalid Transaction: Custom error: 6"), Some(Reason::TooSoon));
        assert_eq!(reason(1010, "Invalid Transaction: Invalid transaction with custom error: 1"), Some(Reason::Stake));
        assert_eq!(reason(1010, r#"{"invalid":{"custom":3}}"#), Some(Reason::Subnet));
        assert_eq!(reason(1010, "Custom error: 255"), Some(Reason::BadRequest));
        assert_eq!(reason(1010, "Custom error: 20"), Some(Reason::Unregistered));
        assert_eq!(reason(1010, "Custom error: 77"), None);
        assert_eq!(reason(1010, "Custom error: 300"), None);
        assert_eq!(reason(1010, r#"{"invalid":{"stale":null}}"#), Some(Reason::Waiting));
        assert_eq!(reason(1010, "Transaction has a bad signature"), Some(Reason::Outdated));
        assert_eq!(reason(1010, "Inability to pay some fees, e.g. account balance too low"), Some(Reason::Fees));
        assert_eq!(reason(1014, "Priority is too low: (10 vs 10)"), Some(Reason::Waiting));
        assert_eq!(reason(1016, "Immediately Dropped"), Some(Reason::Full));
        assert_eq!(reason(-32603, "Internal error"), None);
    }

    #[test]
    fn every_reason_is_told_with_a_remedy_and_stands_once() {
        for (at, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..at].iter().all(|other| other.2 != row.2), "{:?}", row.2);
            assert!(!row.3.is_empty() && !row.4.is_empty());
            for name in row.1 {
                let refusal = Refusal::by_runtime(&format!("SubtensorModule::{name}"));
                assert_eq!((refusal.reason(), refusal.remedy()), (Some(row.2), row.4), "{name}");
            }
        }
        let unknown = Refusal::by_runtime("Balances::Odd\u{1b}[31m");
        assert_eq!((unknown.reason(), unknown.to_string().contains('\u{1b}')), (None, false), "{unknown}");
    }
}
