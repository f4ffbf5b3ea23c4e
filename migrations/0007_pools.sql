-- Pools: named limits on how many tasks run at a time, over all cycles. There are no counters: a pool is as full as there
-- are running tasks in it whose cycle's lease is live.

-- The pool a task takes a place of now; null for a task that does not run, or runs in none. Because it is null for all
-- others, the index holds only places that are taken, and the updates of other tasks never touch it.
alter table task add column pool text collate "C";
create index task_pool on task (pool) where pool is not null;
