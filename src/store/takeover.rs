//! Taking a cycle from an owner that does not let go of it: one that hangs, or sits behind a broken network.

use crate::cycle::CycleId;

use super::{Error, Store};

impl Store {
    /// Void the lease of an open cycle. Its owner finds out at its next write or heartbeat, both of which are refused; who
    /// acquires the cycle next gets a newer epoch. Whether there was a lease to void.
    pub async fn revoke_lease(&self, cycle: CycleId) -> Result<bool, Error> {
        self.ask(|| async {
            // Not by letting it run out: a heartbeat in between would make it good again.
            let revoked = sqlx::query(
                "update cycle set owner = null, lease_until = null, holder = null
                 where cycle_id = $1 and status = 'open' and owner is not null",
            )
            .bind(cycle.as_uuid())
            .execute(&self.pool)
            .await?;
            Ok(revoked.rows_affected() == 1)
        })
        .await
    }
}
