//! Whose vectors a handle of the database serves: a publication belongs to a subnet, or is local.

use sqlx::PgConnection;

use crate::cycle::CycleId;

use super::Store;

/// Whose vectors, and whose miners.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Those of a subnet.
    Subnet {
        /// Its uid.
        netuid: u16,
        /// Hash of block 0 of its chain, where it is known.
        genesis: Option<String>,
    },
    /// Nobody names a subnet: those of the subnet that was the first to publish, and local ones before any subnet has. A cycle
    /// that is run later by hand cannot replace them.
    #[default]
    First,
}

/// Which publications or cycles, as the first parameters of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) is_all: bool,
    pub(super) netuid: Option<i32>,
    pub(super) genesis: Option<String>,
}

impl Target {
    /// The subnet of a cycle, or what is local.
    pub(super) async fn of(connection: &mut PgConnection, cycle: CycleId) -> Result<Self, sqlx::Error> {
        let sql = "select genesis, netuid from cycle where cycle_id = $1";
        let pin: Option<(Option<String>, Option<i32>)> =
            sqlx::query_as(sql).bind(cycle.as_uuid()).fetch_optional(connection).await?;
        let (genesis, netuid) = pin.and_then(|(genesis, netuid)| genesis.zip(netuid)).unzip();
        Ok(Self { is_all: false, netuid, genesis })
    }
}

impl Store {
    /// The same database for whoever serves these vectors.
    #[must_use]
    pub fn serving(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    pub(super) async fn target(&self, connection: &mut PgConnection) -> Result<Target, sqlx::Error> {
        if let Scope::Subnet { netuid, genesis } = &self.scope {
            return Ok(Target { is_all: false, netuid: Some((*netuid).into()), genesis: genesis.clone() });
        }
        let sql = "select genesis, netuid from publication where netuid is not null order by sequence limit 1";
        let first: Option<(String, i32)> = sqlx::query_as(sql).fetch_optional(connection).await?;
        let is_all = first.is_none();
        let (genesis, netuid) = first.unzip();
        Ok(Target { is_all, netuid, genesis })
    }
}
