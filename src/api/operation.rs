//! One thing that can be asked of the API, with everything there is to say of it: what answers it, and what the OpenAPI document
//! says. An address without a word in the document cannot be made.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::{
    Api, body,
    query::{Question, refuse_questions},
};

/// How a schema is made.
pub(super) type Schematic = fn(&mut SchemaGenerator) -> Schema;

/// Something that can be asked.
pub(super) struct Operation {
    pub(super) path: &'static str,
    /// The method in lower case.
    pub(super) method: &'static str,
    /// What it is called in the document, once.
    pub(super) id: &'static str,
    /// What it is for, in a line.
    pub(super) summary: &'static str,
    pub(super) group: &'static str,
    handler: MethodRouter<Api>,
    /// What is sent along, and whether anything has to be; who sends it needs a key.
    pub(super) body: Option<(Schematic, bool)>,
    pub(super) in_path: Option<InPath>,
    /// What can be asked behind the `?`.
    pub(super) question: Option<Schematic>,
    /// A header that changes the answer.
    pub(super) header: Option<(&'static str, &'static str, Schematic)>,
    pub(super) answers: Vec<Answered>,
}

/// A part of an address that stands for something.
pub(super) struct InPath {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: Schematic,
}

/// An answer that there can be.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) description: &'static str,
    /// Its media type, and what it is made of; an answer without a body has none.
    pub(super) content: Option<(&'static str, Schematic)>,
    pub(super) tag: Tag,
}

/// Whether an answer can be asked for again cheaply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// It has an `ETag`, and 304 goes to whoever has it.
    Some,
    /// It has none.
    None,
}

impl Operation {
    /// `GET` of an address.
    pub(super) fn get<T: 'static>(path: &'static str, id: &'static str, handler: impl Handler<T, Api>) -> Self {
        Self {
            path,
            method: "get",
            id,
            summary: "",
            group: "",
            handler: on(MethodFilter::GET, handler),
            body: None,
            in_path: None,
            question: None,
            header: None,
            answers: Vec::new(),
        }
    }

    /// `POST` to an address, by the holder of a key, with this body.
    pub(super) fn post<B: JsonSchema + DeserializeOwned, T: 'static>(
        path: &'static str,
        id: &'static str,
        handler: impl Handler<T, Api>,
    ) -> Self {
        let handler = on(MethodFilter::POST, handler).layer(DefaultBodyLimit::max(body::LARGEST));
        // None at all is the same as an empty object.
        let body = Some((schema::<B> as Schematic, serde_json::from_str::<B>("{}").is_err()));
        Self { method: "post", handler, body, ..Self::get(path, id, async || ()) }
    }

    /// What it is for, and among which others it is listed.
    pub(super) fn about(self, group: &'static str, summary: &'static str) -> Self {
        Self { summary, group, ..self }
    }

    /// What the part of its address in braces stands for.
    pub(super) fn part(self, name: &'static str, description: &'static str, schema: Schematic) -> Self {
        Self { in_path: Some(InPath { name, description, schema }), ..self }
    }

    /// What it takes behind the `?`. Without this it takes nothing.
    pub(super) fn takes<Q: Question>(self) -> Self {
        Self { question: Some(|generator| generator.root_schema_for::<Q>()), ..self }
    }

    /// A header that changes the answer.
    pub(super) fn header(self, name: &'static str, description: &'static str, schema: Schematic) -> Self {
        Self { header: Some((name, description, schema)), ..self }
    }

    /// It answers JSON that can be asked for again cheaply.
    pub(super) fn gives<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answers(200, description, Some(("application/json", schema::<T>)), Tag::Some)
    }

    /// It says so where there is nothing of the kind.
    pub(super) fn or_none(self, description: &'static str) -> Self {
        self.answers(404, description, None, Tag::None)
    }

    /// It answers this.
    pub(super) fn answers(
        mut self,
        status: u16,
        description: &'static str,
        content: Option<(&'static str, Schematic)>,
        tag: Tag,
    ) -> Self {
        self.answers.push(Answered { status, description, content, tag });
        self
    }

    fn mounted_on(self, router: Router<Api>) -> Router<Api> {
        let handler = match self.question {
            Some(_) => self.handler,
            None => self.handler.layer(middleware::from_fn(refuse_questions)),
        };
        router.route(self.path, handler)
    }
}

/// The schema of a type, once in the document.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A router that answers all of them.
pub(super) fn router(operations: Vec<Operation>) -> Router<Api> {
    operations.into_iter().fold(Router::new(), |router, operation| operation.mounted_on(router))
}
