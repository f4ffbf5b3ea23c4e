//! The pipelines of a backend as its API shows and starts them: what joins the two, which do not know each other.

use crate::api::{self, Refused, Shown};
use crate::backend::{Kept, Pipelines, new_cycle};
use crate::store::NewCycle;

impl api::Pipelines for Pipelines {
    fn shown(&self) -> Vec<Shown> {
        self.all().into_iter().map(shown).collect()
    }

    fn new_cycle(&self, name: &str, inputs: &[(String, String)]) -> Result<NewCycle, Refused> {
        let kept = self.all().into_iter().find(|kept| kept.name == name).ok_or(Refused::Unknown)?;
        let Some(pipeline) = kept.pipeline else {
            return Err(Refused::Mistaken(kept.problem.unwrap_or_default().to_string()));
        };
        let compiled = pipeline.compile_with(inputs).map_err(|problems| Refused::Mistaken(problems.to_string()))?;
        Ok(new_cycle(&compiled))
    }
}

fn shown(kept: Kept) -> Shown {
    let compiled = kept.pipeline.as_ref().map(|pipeline| pipeline.compiled());
    let environments = compiled.iter().flat_map(|it| &it.definition.environments);
    Shown {
        name: kept.name,
        file: kept.file,
        definition_hash: compiled.map(|compiled| compiled.definition.hash().to_string()),
        schedules: compiled.map(|compiled| compiled.schedules.clone()).unwrap_or_default(),
        environments: environments.map(|it| it.simulation.environment.to_string()).collect(),
        problem: kept.problem.map(|problems| problems.to_string()),
        warnings: compiled.filter(|it| !it.warnings.is_empty()).map(|it| it.warnings.to_string()),
    }
}
