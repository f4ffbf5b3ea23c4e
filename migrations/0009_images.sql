-- Which image a name stands for in a cycle: decided by the first task that uses it, for all that come after. PostgreSQL 13 SQL.

create table cycle_image (
    cycle_id uuid not null references cycle on delete cascade,
    -- As manifests and pipelines write it.
    name text not null,
    -- The id of its contents, `sha256:...`.
    image text not null,
    created_at timestamptz not null default now(),
    primary key (cycle_id, name)
);

create trigger cycle_image_final before update on cycle_image for each row execute function refuse_change();
