//! Everything that can be asked of the API: the list from which both the router and the OpenAPI document are made.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    cycle_documents, cycles, documents, episodes, events, health, metrics, miner, miners, openapi,
    operation::{Operation, Schematic, Tag, schema},
    page, reference, schedules, scores, status, weights, writes,
};
use crate::cycle::{CycleName, Hotkey};

const JSON: &str = "application/json";
const NO_SCHEDULE: &str = "No backend has read a schedule of a pipeline of that name.";
const NO_CYCLE: &str = "There is no such cycle.";

/// Everything that can be asked.
pub(super) fn operations() -> Vec<Operation> {
    [results(), evaluation(), of_cycles(), running(), writes(), about()].into_iter().flatten().collect()
}

fn results() -> Vec<Operation> {
    let weights = |operation: Operation, description| {
        operation.answers(200, description, Some((JSON, documents::weights_schema)), Tag::Some)
    };
    let scores = |operation: Operation, description| {
        operation.answers(200, description, Some((JSON, documents::scores_schema)), Tag::Some)
    };
    vec![
        weights(
            Operation::get("/v1/weights/latest", "latestWeights", weights::latest)
                .about("Results", "The vector that counts, with a word for how it stands"),
            "The vector. It is served from memory, also while the database is away.",
        )
        .or_none("No weights have been published yet."),
        weights(
            Operation::get("/v1/weights/{block}", "weightsAtBlock", weights::at_block)
                .about("Results", "The last vector that was given out of a cycle pinned to a block")
                .part("block", "Number of the block", block),
            "The vector.",
        )
        .or_none("No weights have been published for this block."),
        scores(
            Operation::get("/v1/scores/latest", "latestScores", scores::latest)
                .about("Results", "What the vector that counts was made from"),
            "The scores.",
        )
        .or_none("No weights have been published yet."),
        scores(
            Operation::get("/v1/scores/{cycle}", "scoresOfCycle", scores::of_cycle)
                .about("Results", "What a cycle's vector was made from")
                .part("cycle", "Number or UUID of the cycle", schema::<CycleName>),
            "The scores, which never change.",
        )
        .or_none("No such cycle has published scores."),
    ]
}

fn evaluation() -> Vec<Operation> {
    vec![
        Operation::get("/v1/status", "status", status::show)
            .about("Evaluation", "Where the evaluation stands")
            .gives::<status::StatusBody<'_>>("How it stands."),
        Operation::get("/v1/environments", "environments", status::environments)
            .about("Evaluation", "In what is evaluated")
            .gives::<status::Environments<'_>>("The environments of the vector that counts."),
        Operation::get("/v1/miners", "miners", miners::list)
            .about("Evaluation", "Everybody whom the last discovery saw, and how they did")
            .gives::<miners::Miners<'_>>("Everybody, those who take no part included."),
        Operation::get("/v1/miners/{hotkey}", "miner", miner::show)
            .about("Evaluation", "All there is to say to one miner")
            .part("hotkey", "Who", schema::<Hotkey>)
            .gives::<miner::Miner<'_>>("The miner.")
            .or_none("No miner of this hotkey is known."),
    ]
}

fn of_cycles() -> Vec<Operation> {
    let cycle = |path, id, summary: &'static str, operation: fn(&'static str, &'static str) -> Operation| {
        operation(path, id).about("Cycles", summary).part("cycle", "Number or UUID of the cycle", schema::<CycleName>)
    };
    vec![
        Operation::get("/v1/cycles", "cycles", cycles::list)
            .about("Cycles", "What has been evaluated, newest first, page by page")
            .takes::<cycles::Page>()
            .gives::<cycles::Cycles<'_>>("A page."),
        cycle("/v1/cycles/{cycle}", "cycle", "How a cycle went: its stages, their tasks, how long they took", |path, id| {
            Operation::get(path, id, cycles::show)
        })
        .gives::<cycle_documents::Detail<'_>>("The cycle.")
        .or_none(NO_CYCLE),
        cycle("/v1/cycles/{cycle}/episodes", "episodes", "The episodes of a cycle, page by page", |path, id| {
            Operation::get(path, id, episodes::list)
        })
        .takes::<episodes::Page>()
        .gives::<episodes::Episodes<'_>>("A page.")
        .or_none(NO_CYCLE),
        cycle("/v1/cycles/{cycle}/scores.csv", "scoresTable", "A cycle's scores as a table", |path, id| {
            Operation::get(path, id, cycles::scores_csv)
        })
        .answers(200, "One line for each miner and environment.", Some(("text/csv", text)), Tag::None)
        .or_none("There is no such cycle, or it has published no scores."),
        cycle("/v1/cycles/{cycle}/events", "events", "A cycle's journal as it is written, as server-sent events", |path, id| {
            Operation::get(path, id, events::follow)
        })
        .header("Last-Event-ID", "The last event that was received: only later ones come", event_id)
        .answers(
            200,
            "Events `task`, whose data is a `TaskLine`; then one event `end`, whose data is an `End`, and the stream is over. \
             Comments come while nothing happens.",
            Some(("text/event-stream", stream)),
            Tag::None,
        )
        .answers(204, "The cycle has ended, and the client has seen everything.", None, Tag::None)
        .or_none(NO_CYCLE),
    ]
}

fn running() -> Vec<Operation> {
    vec![
        Operation::get("/v1/pipelines", "pipelines", schedules::pipelines)
            .about("Operation", "The pipelines of this backend")
            .gives::<schedules::Pipelines<'_>>("The pipelines."),
        Operation::get("/v1/schedules", "schedules", schedules::schedules)
            .about("Operation", "The schedules in force, and what became of their last due times")
            .gives::<schedules::Schedules<'_>>("The schedules of all backends on this database."),
    ]
}

fn writes() -> Vec<Operation> {
    let conflict = |operation: Operation, description| operation.answers(409, description, None, Tag::None);
    let json = |of: Schematic| Some((JSON, of));
    let cycle = |operation: Operation| {
        operation.part("cycle", "Number or UUID of the cycle", schema::<CycleName>).or_none(NO_CYCLE)
    };
    let pipeline = |operation: Operation, none| operation.part("pipeline", "Its name", text).or_none(none);
    let unfit = |operation: Operation, description| operation.answers(422, description, None, Tag::None);
    let paused = json(schema::<writes::Paused>);
    vec![
        conflict(
            unfit(
                Operation::post::<writes::Start, _>("/v1/pipelines/{name}/cycles", "startCycle", writes::start)
                    .about("Operation", "Start a cycle of a pipeline")
                    .part("name", "The pipeline", text)
                    .header(
                        "Idempotency-Key",
                        "The same request sent again with the same key starts no second cycle",
                        key,
                    )
                    .answers(201, "It is created; a backend takes it up.", json(schema::<writes::Started>), Tag::None)
                    .or_none("This backend has no pipeline of that name."),
                "The inputs do not fit the pipeline, or another request was sent with this `Idempotency-Key`.",
            ),
            "As many cycles as may be are open.",
        ),
        conflict(
            cycle(Operation::post::<writes::Cancel, _>("/v1/cycles/{cycle}/cancel", "cancelCycle", writes::cancel))
                .about("Operation", "Stop a cycle")
                .answers(202, "It is asked to stop.", json(schema::<writes::Stopping>), Tag::None),
            "It has ended already.",
        ),
        conflict(
            unfit(
                cycle(Operation::post::<writes::Retry, _>("/v1/cycles/{cycle}/retry", "retryCycle", writes::retry))
                    .about("Operation", "Run again what has failed in a cycle")
                    .answers(202, "These tasks run again.", json(schema::<writes::Reopened>), Tag::None),
                "The cycle has no such stage.",
            ),
            "Nothing that was asked for can run again.",
        ),
        conflict(
            cycle(Operation::post::<writes::Release, _>("/v1/cycles/{cycle}/release", "release", writes::release))
                .about("Operation", "Give out a vector that the publish guard holds")
                .answers(200, "It counts.", json(schema::<writes::Released>), Tag::None),
            "It is not held, or not the newest.",
        ),
        pipeline(
            Operation::post::<writes::Pause, _>("/v1/schedules/{pipeline}/pause", "pauseSchedules", writes::pause),
            NO_SCHEDULE,
        )
        .about("Operation", "Start no cycles of a pipeline by schedule")
        .answers(200, "They are paused.", paused, Tag::None),
        pipeline(
            Operation::post::<writes::Nothing, _>("/v1/schedules/{pipeline}/resume", "resumeSchedules", writes::resume),
            NO_SCHEDULE,
        )
        .about("Operation", "End a pause")
        .answers(200, "They are not paused.", paused, Tag::None),
    ]
}

fn about() -> Vec<Operation> {
    let healthy = Some((JSON, schema::<health::Health> as _));
    let health = |path, id, summary| {
        Operation::get(path, id, health::show)
            .about("About", summary)
            .answers(200, "Both are well.", healthy, Tag::None)
            .answers(503, "The database is unreachable.", healthy, Tag::None)
    };
    vec![
        of_page(Operation::get("/", "page", page::page), "text/html"),
        of_page(Operation::get("/page.css", "pageStyle", page::style), "text/css"),
        of_page(Operation::get("/page.js", "pageScript", page::script), "text/javascript"),
        health("/health", "health", "Whether this process and its database are well"),
        health("/health/ready", "ready", "The same, for whoever decides where requests go"),
        Operation::get("/health/live", "live", health::live)
            .about("About", "Whether this process answers at all")
            .answers(200, "It does.", Some((JSON, schema::<health::Alive>)), Tag::None),
        Operation::get("/metrics", "metrics", metrics::show)
            .about("About", "How this backend is, for Prometheus")
            .answers(200, "Metrics in Prometheus' text format.", Some(("text/plain", text)), Tag::None),
        Operation::get("/openapi.json", "openapi", openapi::show).about("About", "This document").answers(
            200,
            "An OpenAPI 3.1 document.",
            Some((JSON, object)),
            Tag::Some,
        ),
        of_page(Operation::get("/docs", "docs", reference::page), "text/html"),
        of_page(Operation::get("/docs/swagger-ui.css", "docsStyle", reference::style), "text/css"),
        of_page(Operation::get("/docs/swagger-ui-bundle.js", "docsBundle", reference::bundle), "text/javascript"),
        of_page(Operation::get("/docs/start.js", "docsStart", reference::start), "text/javascript"),
    ]
}

/// A page for people, or a file that one is made of.
fn of_page(operation: Operation, kind: &'static str) -> Operation {
    operation.about("About", "For people").answers(200, "The file.", Some((kind, text)), Tag::None)
}

fn block(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": u64::MAX })
}

fn event_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": i64::MAX })
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string" })
}

/// What a client calls its request. Blanks around the value of a header are not part of it.
fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[ \\t]*[!-~]{1,200}[ \\t]*$" })
}

fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// An event of a stream.
fn stream(generator: &mut SchemaGenerator) -> Schema {
    let (line, end) = (generator.subschema_for::<events::TaskLine<'_>>(), generator.subschema_for::<events::End>());
    json_schema!({
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": { "type": "string", "description": "The line's place in the journal; `end` has none." },
            "event": { "enum": ["task", "end"] },
            "data": {
                "type": "string", "contentMediaType": "application/json", "contentSchema": { "anyOf": [line, end] },
            },
        },
    })
}
