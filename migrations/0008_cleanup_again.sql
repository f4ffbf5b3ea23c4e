-- A cycle that goes on after its cleanup cleans up again: tasks of `on_failure` and `finally` may be reopened though they have
-- succeeded. Those of the main body still may not.

create function is_cleanup(of_cycle uuid, of_stage text) returns boolean language plpgsql stable as $$
begin
    return exists (
        select from cycle cross join json_array_elements(definition->'stages') stage
        where cycle_id = of_cycle and stage->>'id' = of_stage and stage->>'phase' in ('on_failure', 'finally'));
-- JSON may hold a character that no text of the database can. The programs, which read it, have the same rule.
exception when untranslatable_character then
    return true;
end
$$;

create or replace function refuse_change_of_task() returns trigger language plpgsql as $$
declare
    reopened record;
begin
    reopened := old;
    reopened.status := 'pending';
    reopened.failed_attempts := 0;
    reopened.output := null;
    reopened.failure := null;
    reopened.reason := null;
    reopened.finished_at := null;
    if row_to_json(new)::text = row_to_json(reopened)::text
        and exists (select from cycle where cycle.cycle_id = old.cycle_id and cycle.status = 'open')
        and (old.status <> 'succeeded' or is_cleanup(old.cycle_id, old.stage)) then
        return new;
    end if;
    raise exception 'a finished % never changes', tg_table_name using errcode = 'restrict_violation';
end
$$;
