//! What a miner wrote on the chain: which policy it serves, and where. Pure text to typed value; every text a stranger can
//! write ends in a value or in a reason that its author can read.

use std::str;

use serde::{Deserialize, Serialize};

/// Longest text that is looked at, in bytes: twice what the chain can hold in one field.
const LONGEST: usize = 1024;

/// A commitment that says where a policy answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// The policy's model; a commitment of the newest form names none.
    #[serde(default, flatten)]
    pub model: Option<Model>,
    /// Where it answers.
    pub place: Place,
    /// The container image that serves it, where the miner names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_image: Option<String>,
}

/// A model at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The model's repository, `owner/name`.
    #[serde(rename = "model")]
    pub repository: String,
    /// Its revision, as the miner wrote it: a whole hash or the beginning of one.
    pub revision: String,
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

/// Where a policy answers, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An address in full.
    Url(String),
    /// The id of a deployment, which a template turns into an address.
    Deployment(String),
    /// The id of a deployment that only the owner of a private key can read, as base85.
    Sealed(String),
}

/// Why a text is no commitment, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The field holds no text.
    #[error("the commitment is empty")]
    Empty,
    /// Longer than any commitment.
    #[error("the commitment has {0} bytes, more than {LONGEST}")]
    TooLong(usize),
    /// Not text at all.
    #[error("the commitment is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// It begins like JSON and is none.
    #[error("the commitment begins with `{{` and is not the JSON it should be: {0}")]
    NotJson(String),
    /// None of the formats.
    #[error("the commitment is neither JSON nor `model:revision:deployment` nor the id of a deployment")]
    Unknown,
    /// A part that must be there is not.
    #[error("the commitment's `{0}` is empty")]
    Missing(&'static str),
    /// Control characters, which no name has.
    #[error("the commitment's `{0}` holds control characters")]
    Control(&'static str),
    /// A deployment's id that cannot be part of a host name.
    #[error("the commitment's deployment `{0}` cannot be part of a host name")]
    Deployment(String),
}

#[derive(Deserialize)]
struct Json {
    #[serde(alias = "m")]
    model: String,
    #[serde(alias = "r")]
    revision: String,
    #[serde(default, alias = "deployment_id", alias = "d")]
    chute_id: Option<String>,
    #[serde(default, rename = "e")]
    encrypted: Option<String>,
    #[serde(default)]
    docker_image: Option<String>,
}

impl Commitment {
    /// Read what a commitment's field holds.
    ///
    /// These formats are known:
    /// - the id of a deployment alone, or its `http(s)://` address;
    /// - `e:BASE85`, the id of a deployment that is encrypted (see [`super::seal`]);
    /// - `model:revision:deployment[:docker_image]` and `model:revision:e:BASE85`;
    /// - a JSON object `{"model", "revision", "chute_id"[, "docker_image"]}`, also with the short keys `m`, `r`, `d` and `e`.
    ///
    /// # Errors
    /// [`Malformed`], with the reason.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LONGEST {
            return Err(Malformed::TooLong(bytes.len()));
        }
        let text = str::from_utf8(bytes).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?.trim();
        if text.is_empty() {
            return Err(Malformed::Empty);
        }
        let found = if text.starts_with('{') { json(text)? } else { line(text)? };
        found.checked()
    }

    fn checked(self) -> Result<Self, Malformed> {
        let (deployment, word) = match &self.place {
            Place::Url(text) | Place::Deployment(text) => (text, "deployment"),
            Place::Sealed(text) => (text, "encrypted deployment"),
        };
        let model = self.model.iter().flat_map(|Model { repository, revision }| {
            [("model", repository.as_str()), ("revision", revision.as_str())]
        });
        let image = self.docker_image.iter().map(|image| ("docker_image", image.as_str()));
        for (name, text) in model.chain([(word, deployment.as_str())]).chain(image) {
            if text.is_empty() {
                return Err(Malformed::Missing(name));
            }
            if text.chars().any(char::is_control) {
                return Err(Malformed::Control(name));
            }
        }
        Ok(self)
    }

    /// As it is written on the chain: the shortest of the formats.
    pub fn line(&self) -> String {
        let deployment = match &self.place {
            Place::Url(text) | Place::Deployment(text) => text.clone(),
            Place::Sealed(text) => format!("e:{text}"),
        };
        match &self.model {
            Some(Model { repository, revision }) => format!("{repository}:{revision}:{deployment}"),
            None => deployment,
        }
    }
}

fn json(text: &str) -> Result<Commitment, Malformed> {
    let Json { model, revision, chute_id, encrypted, docker_image } =
        serde_json::from_str(text).map_err(|error| Malformed::NotJson(error.to_string()))?;
    let place = match encrypted {
        Some(package) => Place::Sealed(package),
        None => place(&chute_id.unwrap_or_default()),
    };
    let model = Some(Model { repository: model, revision });
    Ok(Commitment { model, place, docker_image: docker_image.filter(|image| !image.is_empty()) })
}

fn line(text: &str) -> Result<Commitment, Malformed> {
    if let Some(place) = alone(text) {
        return Ok(Commitment { model: None, place, docker_image: None });
    }
    let mut parts = text.splitn(3, ':');
    let (Some(model), Some(revision), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Malformed::Unknown);
    };
    let (place, docker_image) = match rest.strip_prefix("e:") {
        Some(sealed) => (Place::Sealed(sealed.to_owned()), None),
        None if is_url(rest) => (Place::Url(rest.to_owned()), None),
        None => match rest.split_once(':') {
            Some((id, image)) => (Place::Deployment(id.to_owned()), Some(image.to_owned())),
            None => (Place::Deployment(rest.to_owned()), None),
        },
    };
    let docker_image = docker_image.filter(|image| !image.is_empty());
    let model = Some(Model { repository: model.to_owned(), revision: revision.to_owned() });
    Ok(Commitment { model, place, docker_image })
}

/// A deployment that stands there without a model. Only text that can be an id is one: anything else is no commitment.
fn alone(text: &str) -> Option<Place> {
    match text.strip_prefix("e:") {
        Some(package) => Some(Place::Sealed(package.to_owned())),
        None if is_url(text) => Some(Place::Url(text.to_owned())),
        None => label(text).map(|_| Place::Deployment(text.to_owned())),
    }
}

fn place(text: &str) -> Place {
    if is_url(text) { Place::Url(text.to_owned()) } else { Place::Deployment(text.to_owned()) }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme)))
}

/// The address of a deployment: `template` with the id in place of `{id}`, in lower case, `_` as `-`.
///
/// # Errors
/// [`Malformed::Deployment`] for an id that is no label of a host name (RFC 1123: letters, digits and `-`, 63 at most).
pub fn deployed_at(template: &str, id: &str) -> Result<String, Malformed> {
    match label(id) {
        Some(label) => Ok(template.replace("{id}", &label)),
        None => Err(Malformed::Deployment(id.to_owned())),
    }
}

/// An id as a label of a host name; none for an id that cannot be one.
fn label(id: &str) -> Option<String> {
    let label = id.to_ascii_lowercase().replace('_', "-");
    let fits = (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-');
    fits.then_some(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "95edf2b6-e18b-400a-8398-5573df10e5e4";

    fn deployment(text: &str) -> Commitment {
        Commitment::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_format_is_read() {
        let line = deployment(&format!("user/policy:01234567:{ID}\n"));
        assert_eq!(line.model.as_ref().unwrap().to_string(), "user/policy@01234567");
        assert_eq!(line.place, Place::Deployment(ID.into()));
        assert_eq!(line.docker_image, None);
        let json = deployment(&format!(r#"  {{"model": "user/policy", "revision": "01234567", "chute_id": "{ID}"}}"#));
        assert_eq!(json, line);
        assert_eq!(deployment("u/p:1:https://h:8443/x").place, Place::Url("https://h:8443/x".into()));
        assert_eq!(deployment("u/p:1:e:ab:cd").place, Place::Sealed("ab:cd".into()));
        assert_eq!(deployment("u/p:1:e").place, Place::Deployment("e".into()), "an id of one letter");
        let image = deployment("u/p:1:c:docker.io/u/p:v1");
        assert_eq!(
            (image.place, image.docker_image.as_deref()),
            (Place::Deployment("c".into()), Some("docker.io/u/p:v1"))
        );
    }

    #[test]
    fn a_deployment_may_stand_alone_or_encrypted_and_names_no_model_then() {
        for (text, place) in [
            (ID, Place::Deployment(ID.into())),
            ("My_Policy-1", Place::Deployment("My_Policy-1".into())),
            ("e", Place::Deployment("e".into())),
            ("https://h:8443/x", Place::Url("https://h:8443/x".into())),
            ("e:ab:cd", Place::Sealed("ab:cd".into())),
        ] {
            assert_eq!(deployment(text), Commitment { model: None, place, docker_image: None }, "{text}");
            assert_eq!(deployment(text).line(), text);
        }
        let shown = serde_json::to_value(deployment("e:abc")).unwrap();
        assert_eq!(shown, serde_json::json!({ "place": { "sealed": "abc" } }));
        assert_eq!(serde_json::from_value::<Commitment>(shown).unwrap(), deployment("e:abc"));
        let whole = serde_json::to_value(deployment("u/p:1:c")).unwrap();
        assert_eq!(whole, serde_json::json!({ "model": "u/p", "revision": "1", "place": { "deployment": "c" } }));
        assert_eq!(serde_json::from_value::<Commitment>(whole).unwrap(), deployment("u/p:1:c"));
    }

    #[test]
    fn json_may_have_short_keys() {
        assert_eq!(deployment(r#"{"m":"u/p","r":"1","d":"c"}"#), deployment("u/p:1:c"));
        assert_eq!(deployment(r#"{"m":"u/p","r":"1","e":"abc"}"#), deployment("u/p:1:e:abc"));
        assert_eq!(deployment(r#"{"model":"u/p","revision":"1","deployment_id":"c"}"#), deployment("u/p:1:c"));
    }

    #[test]
    fn what_is_wrong_is_said_to_its_author() {
        let reason = |bytes: &[u8]| Commitment::parse(bytes).unwrap_err();
        assert_eq!(reason(b" \n"), Malformed::Empty);
        assert_eq!(reason(b"hello world"), Malformed::Unknown);
        assert_eq!(reason(b"user/policy:01234567"), Malformed::Unknown);
        assert_eq!(reason("pölicy".as_bytes()), Malformed::Unknown);
        assert_eq!(reason(&[b'a'; 64]), Malformed::Unknown, "longer than a label of a host name");
        assert_eq!(reason(b"e:"), Malformed::Missing("encrypted deployment"));
        assert_eq!(reason(b":1:c"), Malformed::Missing("model"));
        assert_eq!(reason(b"u/p::c"), Malformed::Missing("revision"));
        assert_eq!(reason(b"u/p:1:"), Malformed::Missing("deployment"));
        assert_eq!(reason(b"u/p:1:e:"), Malformed::Missing("encrypted deployment"));
        assert_eq!(reason(br#"{"model": "m", "revision": "r"}"#), Malformed::Missing("deployment"));
        assert_eq!(reason(b"u/p\0:1:c"), Malformed::Control("model"));
        assert_eq!(reason(b"u/\xff:1:c"), Malformed::NotUtf8(2));
        assert_eq!(reason(&[b'a'; 1025]), Malformed::TooLong(1025));
        let json = reason(br#"{"model":"u/p","chute_id":"c"}"#).to_string();
        assert!(json.contains("missing field `revision`"), "{json}");
    }

    #[test]
    fn a_deployment_has_an_address_if_it_can_be_part_of_one() {
        let at = |id| deployed_at("https://{id}.example.org", id);
        assert_eq!(at("My_Chute-1").unwrap(), "https://my-chute-1.example.org");
        for id in ["", "a.b", "-a", "a_", "a/b", "a@b", "ü", "a b", &"x".repeat(64)] {
            assert_eq!(at(id), Err(Malformed::Deployment(id.into())));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_value_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(found) = Commitment::parse(&bytes) {
                prop_assert!(!found.model.is_some_and(|model| model.repository.is_empty() || model.revision.is_empty()));
            }
        }

        #[test]
        fn any_text_of_three_parts_ends_so_too(text in "\\{?[a-z\\\\\":{}, \u{0}é]{0,20}(:[a-z:e{}\"/]{0,20}){0,4}") {
            let _ = Commitment::parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_is_read_again(
            model in prop::option::of(("[a-z]{1,10}/[a-z]{1,10}", "[0-9a-f]{8}")),
            place in prop_oneof![
                "[a-df-z0-9][a-z0-9-]{0,30}[a-z0-9]".prop_map(Place::Deployment),
                "https?://[a-z]{1,10}(:[0-9]{2,4})?(/[a-z]{1,5})?".prop_map(Place::Url),
                "[!-9;-~]{1,80}".prop_map(Place::Sealed),
            ],
        ) {
            let model = model.map(|(repository, revision)| Model { repository, revision });
            let written = Commitment { model, place, docker_image: None };
            prop_assert_eq!(Commitment::parse(written.line().as_bytes()), Ok(written));
        }
    }
}
