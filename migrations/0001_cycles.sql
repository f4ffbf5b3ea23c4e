-- Cycles, their tasks, episodes and publications. PostgreSQL 13 SQL; see docs/database.md for what each table holds.
--
-- Ids and names are compared byte by byte (collate "C"), so that the order of episodes and tasks is the same on every
-- server, whatever locale its cluster was made with: scores must not depend on it.
--
-- Definitions, outputs and events are `json`, not `jsonb`: a resumed cycle must read exactly the text that was written,
-- and jsonb rewrites numbers (1e15 becomes an integer) and refuses the character U+0000 that a failing program may print.

create table cycle (
    cycle_id uuid primary key,
    pipeline text not null,
    -- The resolved definition: what a resumed cycle goes on with, whatever has happened to the files since.
    definition json not null,
    definition_hash text not null,
    root text not null,
    -- The secret the seeds come from. Nothing shows it before the cycle has ended; its hash is public from the start.
    salt bytea not null,
    salt_sha256 text not null,
    block bigint,
    status text not null default 'open'
        constraint cycle_status check (status in ('open', 'completed', 'failed', 'cancelled')),
    reason text,
    cancel_requested boolean not null default false,
    -- The lease. `owner` is null when nobody holds it; `epoch` counts the holders so far and only ever grows, so that a
    -- holder who slept through the loss of its lease finds another number and stops.
    owner uuid,
    epoch bigint not null default 0,
    lease_until timestamptz,
    -- Which process on which machine, to tell at once that a holder has died.
    holder jsonb,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint cycle_lease check ((owner is null) = (lease_until is null)),
    constraint cycle_end check ((status = 'open') = (finished_at is null)),
    -- Who has ended a cycle has given it back.
    constraint cycle_end_lease check (status = 'open' or owner is null)
);

create table task (
    cycle_id uuid not null references cycle on delete cascade,
    stage text collate "C" not null,
    cell text collate "C" not null,
    -- Place in the plan's order.
    position integer not null,
    status text not null default 'pending'
        constraint task_status check (status in ('pending', 'running', 'succeeded', 'failed', 'skipped', 'cancelled')),
    attempt integer not null default 0,
    failed_attempts integer not null default 0,
    output json,
    failure json,
    reason text,
    started_at timestamptz,
    finished_at timestamptz,
    primary key (cycle_id, stage, cell),
    constraint task_position unique (cycle_id, position)
);

-- The log that task rows are derived from. Append-only.
create table task_event (
    cycle_id uuid not null,
    stage text collate "C" not null,
    cell text collate "C" not null,
    attempt integer not null,
    kind text not null,
    -- The lease under which it was written.
    epoch bigint not null,
    payload json not null,
    at timestamptz not null default now(),
    -- The idempotency key: writing a line again after a lost acknowledgement changes nothing.
    constraint task_event_once primary key (cycle_id, stage, cell, attempt, kind),
    foreign key (cycle_id, stage, cell) references task on delete cascade
);

create table episode (
    cycle_id uuid not null,
    environment text collate "C" not null,
    seed_index integer not null,
    hotkey text collate "C" not null,
    stage text collate "C" not null,
    cell text collate "C" not null,
    -- Attempts that have ended. `outcome` is that of the last one: null before any, `infra_fault` while it must run again.
    attempt integer not null default 0,
    outcome text
        constraint episode_outcome check (outcome in ('success', 'failure', 'miner_fault', 'infra_fault')),
    reason text,
    detail text,
    steps bigint,
    return double precision,
    trajectory_hash text,
    latency_p50_ms double precision,
    latency_p95_ms double precision,
    latency_max_ms double precision,
    wall_ms double precision,
    finished_at timestamptz,
    primary key (cycle_id, environment, seed_index, hotkey),
    foreign key (cycle_id, stage, cell) references task on delete cascade
);

-- What still has to run, in the order it runs. The index is partial so that it shrinks as the cycle goes on.
create index episode_pending on episode (cycle_id, stage, cell, seed_index, hotkey)
    where outcome is null or outcome = 'infra_fault';

-- A miner's history, and the number of miners ever seen.
create index episode_hotkey on episode (hotkey);

-- Attempts that our own faults cost, kept to show whether repeated episodes differ from the others.
create table episode_attempt (
    cycle_id uuid not null,
    environment text collate "C" not null,
    seed_index integer not null,
    hotkey text collate "C" not null,
    attempt integer not null,
    reason text not null,
    detail text,
    steps bigint not null,
    wall_ms double precision not null,
    at timestamptz not null default now(),
    primary key (cycle_id, environment, seed_index, hotkey, attempt),
    foreign key (cycle_id, environment, seed_index, hotkey) references episode on delete cascade
);

create table publication (
    cycle_id uuid primary key references cycle,
    -- Order of publication without gaps; the highest is what validators are given.
    sequence bigint not null constraint publication_sequence unique,
    -- Canonical JSON, byte for byte as it was hashed.
    scores text not null,
    weights text not null,
    digest text not null,
    -- Digest of the publication before this one; none for the first.
    previous_digest text,
    block bigint,
    created_at timestamptz not null default now()
);

-- What has ended never changes, whatever program or person tries: the promise is kept here, not only in our queries.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'a finished % never changes', tg_table_name using errcode = 'restrict_violation';
end
$$;

create trigger cycle_final before update on cycle for each row
    when (old.status <> 'open') execute function refuse_change();
create trigger task_final before update on task for each row
    when (old.status not in ('pending', 'running')) execute function refuse_change();
create trigger task_event_final before update on task_event for each row execute function refuse_change();
create trigger episode_final before update on episode for each row
    when (old.outcome <> 'infra_fault') execute function refuse_change();
create trigger episode_attempt_final before update on episode_attempt for each row execute function refuse_change();
create trigger publication_final before update on publication for each row execute function refuse_change();
