-- What an episode is worth next to success, and the actions that let it be played again. PostgreSQL 13 SQL.

-- 0 to 1, where the environment's manifest declares a score.
alter table episode add column score double precision
    constraint episode_score check (score between 0 and 1);

-- As in 0003, with the score at the end.
create or replace view episodes with (security_barrier) as
    select stage, cell, environment, seed_index, hotkey, attempt, outcome, reason, detail, steps, return, trajectory_hash,
        latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, finished_at, score
    from episode
    where cycle_id = nullif(current_setting('robo.cycle_id', true), '')::uuid
        and (
            coalesce(current_setting('robo.stages', true), '') = ''
            or stage = any (string_to_array(current_setting('robo.stages', true), ','))
        );

-- What a miner answered, step by step: 64-bit floats, little-endian, deflated. Only for episodes that the pipeline keeps;
-- each goes with its episode.
create table episode_actions (
    cycle_id uuid not null,
    environment text collate "C" not null,
    seed_index integer not null,
    hotkey text collate "C" not null,
    actions bytea not null,
    primary key (cycle_id, environment, seed_index, hotkey),
    foreign key (cycle_id, environment, seed_index, hotkey) references episode on delete cascade
);

create trigger episode_actions_final before update on episode_actions for each row execute function refuse_change();
