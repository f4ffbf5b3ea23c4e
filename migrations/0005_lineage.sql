-- Where a cycle comes from, results that validators never see, and cycles whose detail has aged out. PostgreSQL 13 SQL.

alter table cycle
    -- 'run' from a pipeline; 'fork' and 'rescore' begin with what another cycle has finished.
    add column origin text not null default 'run'
        constraint cycle_origin check (origin in ('run', 'fork', 'rescore')),
    add column parent_cycle_id uuid references cycle,
    -- The first stage that is run again.
    add column from_stage text collate "C",
    -- Whether its weights become the latest. Where not, `weights/publish` leaves a row of `draft`.
    add column publishes boolean not null default true,
    add constraint cycle_lineage check ((origin = 'run') = (parent_cycle_id is null)),
    add constraint cycle_lineage_stage check ((parent_cycle_id is null) = (from_stage is null));

create index cycle_parent on cycle (parent_cycle_id) where parent_cycle_id is not null;

-- The cycle before this one of the same pipeline, and what is old enough to age out.
create index cycle_pipeline on cycle (pipeline, cycle_id);
create index cycle_ended on cycle (finished_at) where status <> 'open';

-- Attempts that a person's retry has forgiven: they no longer count against the limit of the stage.
alter table episode add column forgiven integer not null default 0;

-- What a cycle that does not publish would have published: the same documents, outside of the chain.
create table draft (
    cycle_id uuid primary key references cycle on delete cascade,
    scores text not null,
    weights text not null,
    digest text not null,
    created_at timestamptz not null default now()
);

create trigger draft_final before update on draft for each row execute function refuse_change();

-- Ended cycles whose episodes, attempts and events have been deleted, or are being deleted while `ended_at` is null. The
-- row stands before the first one goes, so that nobody forks what is half gone.
create table aged_out (
    cycle_id uuid primary key references cycle on delete cascade,
    episodes bigint not null default 0,
    attempts bigint not null default 0,
    events bigint not null default 0,
    bytes bigint not null default 0,
    began_at timestamptz not null default now(),
    ended_at timestamptz
);
