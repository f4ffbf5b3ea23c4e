-- Vectors that are held back from validators, and by whom they were released. PostgreSQL 13 SQL.

alter table draft
    -- Limits of the publish guard, decided upon when the cycle ends.
    add column guard jsonb not null default '{}';

alter table publication
    add column guard jsonb not null default '{}',
    -- Why validators are not given it, unless somebody releases it.
    add column held text;

-- A person's word that a held vector is to be given out after all.
create table publication_release (
    cycle_id uuid primary key references publication,
    reason text not null,
    released_at timestamptz not null default now()
);

create trigger publication_release_final before update on publication_release
    for each row execute function refuse_change();
