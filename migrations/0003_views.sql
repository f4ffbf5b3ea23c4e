-- What a query of an operator may see: one cycle's rows, under the plural names. PostgreSQL 13 SQL; see docs/database.md.
--
-- Which cycle is said by the setting robo.cycle_id; robo.stages, where it is set, narrows the rows to some stages
-- (names with commas between). Without a cycle there are no rows. The barrier keeps conditions of a query away from the
-- rows of other cycles: they would fail on what is in there, and say so.

create view episodes with (security_barrier) as
    select stage, cell, environment, seed_index, hotkey, attempt, outcome, reason, detail, steps, return, trajectory_hash,
        latency_p50_ms, latency_p95_ms, latency_max_ms, wall_ms, finished_at
    from episode
    where cycle_id = nullif(current_setting('robo.cycle_id', true), '')::uuid
        and (
            coalesce(current_setting('robo.stages', true), '') = ''
            or stage = any (string_to_array(current_setting('robo.stages', true), ','))
        );

-- Nothing that a second run would give otherwise: no times, no number of attempts.
create view tasks with (security_barrier) as
    select stage, cell, position, status, output, failure, reason
    from task
    where cycle_id = nullif(current_setting('robo.cycle_id', true), '')::uuid
        and (
            coalesce(current_setting('robo.stages', true), '') = ''
            or stage = any (string_to_array(current_setting('robo.stages', true), ','))
        );

create view miners with (security_barrier) as
    select stage, (miner ->> 'uid')::integer as uid, miner ->> 'hotkey' as hotkey, miner ->> 'endpoint' as endpoint,
        (miner ->> 'first_block')::bigint as first_block
    from tasks
    cross join lateral json_array_elements(
        case when json_typeof(output -> 'miners') = 'array' then output -> 'miners' else '[]' end
    ) as miner
    where json_typeof(miner -> 'uid') = 'number';

create view scores with (security_barrier) as
    select stage, (entry ->> 'uid')::integer as uid, entry ->> 'hotkey' as hotkey,
        (entry ->> 'first_block')::bigint as first_block, entry ->> 'environment' as environment,
        (entry ->> 'success_rate')::double precision as success_rate, entry -> 'interval' as interval,
        (entry ->> 'mean_return')::double precision as mean_return, (entry ->> 'episodes')::bigint as episodes,
        (entry ->> 'successes')::bigint as successes, entry -> 'outcomes' as outcomes
    from tasks
    cross join lateral json_array_elements(
        case when json_typeof(output -> 'scores' -> 'entries') = 'array' then output -> 'scores' -> 'entries' else '[]' end
    ) as entry
    where json_typeof(entry -> 'uid') = 'number';
