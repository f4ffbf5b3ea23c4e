//! `-i name=value` and what every verb that compiles a pipeline shares.

use crate::config;
use crate::manifest::Diagnostics;
use crate::plan::{self, Bindings, Compiled, Missing};

use super::exit::{Exit, Failure};
use super::project::Found;
use super::render;

/// Values for the inputs of a pipeline.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Inputs {
    /// Set an input of the pipeline, for this run. It beats the environment variable `ROBO_INPUT_NAME` and the default
    #[arg(short = 'i', long = "input", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(super) inputs: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, as in `-i episodes_per_env=10`")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Compile a pipeline with the inputs of the command line and the environment. Warnings go to standard error.
pub(super) fn compile(file: &Found, inputs: &Inputs) -> Result<Compiled, Failure> {
    compile_with(file, inputs, &config::input_variable)
}

/// The same with variables from elsewhere.
pub(super) fn compile_with(
    Found { file, root }: &Found,
    inputs: &Inputs,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Compiled, Failure> {
    let bindings = Bindings { flags: &inputs.inputs, variable, missing: Missing::Refuse };
    let compiled = plan::compile_in(file, root.as_deref(), &bindings).map_err(|problems| refused(&problems))?;
    let mut warnings = compiled.missing_secrets(&config::has_secret);
    warnings.extend(compiled.warnings.clone());
    if !warnings.is_empty() {
        render::note(warnings.sorted().to_string());
    }
    Ok(compiled)
}

/// Print what is wrong; what is left to say is how much.
pub(super) fn refused(problems: &Diagnostics) -> Failure {
    render::note(format!("{problems}\n"));
    Failure::new(Exit::Usage, anyhow::anyhow!("{}", count(problems)))
}

/// `1 mistake`, `3 mistakes`.
pub(super) fn count(problems: &Diagnostics) -> String {
    match problems.errors() {
        1 => "1 mistake found".into(),
        errors => format!("{errors} mistakes found"),
    }
}
