//! Manifests: YAML in, validated pipeline and environment types out, every error located.

pub mod simulation;
