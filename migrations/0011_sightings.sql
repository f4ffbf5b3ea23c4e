-- How each miner was found before its episodes in an environment, and as whom. PostgreSQL 13 SQL.
--
-- One row for everything that was seen, with the time it was last seen: a miner that changes its address, certificate or
-- model within a cycle has several. No score depends on them.
create table miner_sighting (
    cycle_id uuid not null references cycle on delete cascade,
    environment text collate "C" not null,
    hotkey text collate "C" not null,
    status text not null constraint miner_sighting_status check (status in ('active', 'cold', 'unreachable', 'refused')),
    detail text,
    -- Empty where nothing answered, or nothing was said.
    address text not null,
    certificate text not null,
    model text not null,
    first_seen_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp(),
    primary key (cycle_id, environment, hotkey, status, address, certificate, model)
);
