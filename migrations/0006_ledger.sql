-- What cycles have started and what may outlive them; see docs/faults.md.

create table resource (
    resource_id uuid primary key,
    cycle_id uuid not null references cycle on delete cascade,
    -- The lease under which it was started.
    epoch bigint not null,
    kind text not null,
    name text not null,
    -- The machine it runs on: only that one can end it.
    host text not null,
    -- How it is found there.
    identity jsonb not null,
    created_at timestamptz not null default now()
);

create index resource_cycle on resource (cycle_id);
create index resource_host on resource (host);
