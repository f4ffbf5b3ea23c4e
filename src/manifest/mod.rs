//! Manifests: YAML in, validated pipeline and environment types out, every error located.
//!
//! Three passes: a `document` is a YAML tree with places; `decode` reads wire structs out of it and reports unknown
//! keys as it goes; `family` and `plan` check what the words mean. It reads files below the pipeline's root and nothing
//! else: no network, no environment variables.

mod adapter;
mod affinetes;
mod build;
mod channels;
pub(crate) mod decode;
mod diagnostic;
pub(crate) mod document;
mod environment;
mod family;
mod form;
pub(crate) mod fragment;
pub(crate) mod located;
pub(crate) mod pipeline;
mod resources;
pub mod schema;
pub mod simulation;
pub(crate) mod suggest;
pub mod summary;
mod task_text;
mod tree;
mod units;

pub use build::Build;
pub(crate) use build::digest as build_digest;
pub use diagnostic::{Diagnostic, Diagnostics, Pointer, Severity};
pub use family::{AFFINETES, Broken, Family, Manifests, Member, Pinned, ROBO_V1, load_all, load_each, root_of};
pub(crate) use family::{load, shown_path, yaml_files};
pub use resources::{Network, Resources};
pub(crate) use units::{duration, memory};
