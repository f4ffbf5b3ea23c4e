//! The kinds that let an operator change what happens without a line of Rust: a program, a query, an expression, a call.

use super::{Absent, Kind, Output, Purity, Rule, Setting, Type, output, setting};

const BYTES: Setting = setting(
    "max_bytes",
    Type::Integer,
    Rule::Between(1, 64 << 20),
    Absent::Default("4194304"),
    "most bytes the result may have as JSON",
);

pub(super) const CONTAINER_RUN: Kind = Kind {
    name: "container/run",
    doc: "runs a program: `input` as JSON on its standard input, an object of the declared outputs as JSON on its standard output",
    settings: &[
        setting(
            "runtime",
            Type::String,
            Rule::OneOf(&["process", "docker"]),
            Absent::Required,
            "where it runs: `process` is a child process on this machine, `docker` a container of `image` that reaches nothing",
        ),
        setting(
            "command",
            Type::List,
            Rule::Free,
            Absent::Optional,
            "the program and its arguments; under `process` one with a `/` in it is a file below the pipeline's root, any other is found in PATH; under `docker` it is found in the image, and without it the image starts what it says itself",
        ),
        setting("image", Type::String, Rule::Free, Absent::Optional, "container image, for `runtime: docker`"),
        setting("input", Type::Any, Rule::Free, Absent::Default("null"), "what the program reads"),
        setting(
            "env",
            Type::Object,
            Rule::Free,
            Absent::Default("{}"),
            "its environment variables; besides these it has PATH and the mark by which it is found, in a container what the image sets",
        ),
        setting(
            "pure",
            Type::Boolean,
            Rule::Free,
            Absent::Default("false"),
            "whether its output depends on `input` and `env` alone, so that rescoring may run it again",
        ),
        BYTES,
    ],
    outputs: &[],
    declares_outputs: true,
    purity: Purity::Declared,
};

pub(super) const SQL_QUERY: Kind = Kind {
    name: "sql/query",
    doc: "asks one read-only query over the rows of this cycle, as far as the stages before it have written them",
    settings: &[
        setting(
            "query",
            Type::String,
            Rule::Free,
            Absent::Required,
            "one `select` over the views `episodes`, `tasks`, `miners` and `scores`",
        ),
        setting(
            "max_rows",
            Type::Integer,
            Rule::Between(1, 1_000_000),
            Absent::Default("10000"),
            "most rows the result may have",
        ),
        BYTES,
    ],
    outputs: &[],
    declares_outputs: true,
    purity: Purity::Pure,
};

pub(super) const EXPR_MAP: Kind = Kind {
    name: "expr/map",
    doc: "evaluates an expression for every element of a list or a mapping",
    settings: &[
        setting(
            "items",
            Type::Any,
            Rule::Free,
            Absent::Required,
            "a list, or a mapping, whose elements are `{key, value}`; at most 100,000 elements",
        ),
        setting(
            "value",
            Type::Expression,
            Rule::Free,
            Absent::Required,
            "what each element becomes; it also knows `item` and `index`",
        ),
        setting(
            "where",
            Type::Expression,
            Rule::Free,
            Absent::Optional,
            "condition on elements that are kept; it also knows `item` and `index`",
        ),
        BYTES,
    ],
    outputs: &[],
    declares_outputs: true,
    purity: Purity::Pure,
};

const SENT: &[Output] = &[
    output("status", Type::Integer, "status of the answer"),
    output("attempts", Type::Integer, "how often it was sent"),
];

pub(super) const WEBHOOK_SEND: Kind = Kind {
    name: "webhook/send",
    doc: "sends JSON with POST, signed, and again after answers 408, 429 and 5xx and after lost connections",
    settings: &[
        setting(
            "url",
            Type::String,
            Rule::Free,
            Absent::Required,
            "where to: `http(s)://...`; redirects are not followed",
        ),
        setting("payload", Type::Any, Rule::Free, Absent::Optional, "the JSON that is sent; this or `text`"),
        setting(
            "text",
            Type::String,
            Rule::Free,
            Absent::Optional,
            "a message, sent as `{text, content}`, which Slack and Discord understand; this or `payload`",
        ),
        setting(
            "secret",
            Type::String,
            Rule::Free,
            Absent::Optional,
            "key of the signature `X-Robo-Signature: sha256=HEX`, HMAC-SHA256 over `X-Robo-Timestamp`, a dot and the body",
        ),
        setting("attempts", Type::Integer, Rule::Between(1, 10), Absent::Default("5"), "how often it is sent at most"),
        setting(
            "answer_seconds",
            Type::Integer,
            Rule::Between(1, 300),
            Absent::Default("10"),
            "how long an answer may take",
        ),
    ],
    outputs: SENT,
    declares_outputs: false,
    purity: Purity::Effects,
};
