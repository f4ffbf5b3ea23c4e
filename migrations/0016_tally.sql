-- What a cycle came to in numbers, for metrics: written down when it has ended, because its episodes age out and because
-- nobody should count them again and again. PostgreSQL 13 SQL.

create table tally (
    cycle_id uuid not null references cycle on delete cascade,
    -- Under which it ended: a cycle that was opened again ends more than once, and no counter may ever go back.
    epoch bigint not null,
    pipeline text not null,
    status text not null,
    -- From its creation to its end; null for one that was made of another.
    seconds double precision,
    -- Arrays of kind, label, detail, bucket, count and sum; see `src/store/tally.rs`.
    counts jsonb not null,
    tallied_at timestamptz not null default clock_timestamp(),
    primary key (cycle_id, epoch)
);
