//! The JSON Schema of an environment manifest.

use serde_json::Value;

use super::environment::Environment;

/// The schema of `environments/*.yaml`.
pub fn environment() -> Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Environment>().to_value()
}
