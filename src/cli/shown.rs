//! The pipelines of a backend as its API shows and starts them: what joins the two, which do not know each other.

use crate::api::{self, Refused, Shown};
use crate::backend::{Kept, Pipelines, new_cycle};
use crate::store::NewCycle;

impl api::Pipelines for Pipelines {
    fn shown(&self) -> Vec<Shown> {
        self.all().into_iter().map(shown).collect()
    }

    fn new_cycle(&self, name: &str, inputs: &[(String, String)]) -> Result<NewCycle, Refused> {
        let kept = self.all().into_iter().find(|kept| kept.pipeline.name() == name).ok_or(Refused::Unknown)?;
        let compiled =
            kept.pipeline.compile_with(inputs).map_err(|problems| Refused::Mistaken(problems.to_string()))?;
        Ok(new_cycle(&compiled))
    }
}

fn shown(kept: Kept) -> Shown {
    let compiled = kept.pipeline.compiled();
    Shown {
        name: kept.pipeline.name().to_owned(),
        file: kept.pipeline.file().to_owned(),
        definition_hash: compiled.definition.hash().to_string(),
        schedules: compiled.schedules.clone(),
        environments: compiled.definition.environments.iter().map(|it| it.simulation.environment.to_string()).collect(),
        problem: kept.problem.map(|problems| problems.to_string()),
    }
}
