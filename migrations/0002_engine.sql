-- Tasks that wait for a person, and what a person may do to a cycle that has not succeeded.

alter table task drop constraint task_status;
alter table task add constraint task_status
    check (status in ('pending', 'running', 'paused', 'succeeded', 'failed', 'skipped', 'cancelled'));

-- Since when an open cycle waits for a person: nobody takes it up without being asked to.
alter table cycle add column paused_at timestamptz;
alter table cycle add constraint cycle_pause check (paused_at is null or (status = 'open' and owner is null));

-- A task that is reopened may be skipped, fail or be cancelled again at the attempt at which it was before. Within one lease
-- a line comes once; a new holder reads the state before it writes, so the same line from it is another event.
alter table task_event drop constraint task_event_once;
alter table task_event add constraint task_event_once primary key (cycle_id, stage, cell, attempt, kind, epoch);

-- What has ended never changes, but for this: a cycle that failed or was cancelled is opened again under a new epoch ...
create function refuse_change_of_cycle() returns trigger language plpgsql as $$
declare
    reopened record;
begin
    reopened := old;
    reopened.status := 'open';
    reopened.reason := null;
    reopened.cancel_requested := false;
    reopened.finished_at := null;
    reopened.epoch := old.epoch + 1;
    -- As text, because `json` knows no equality.
    if old.status in ('failed', 'cancelled') and row_to_json(new)::text = row_to_json(reopened)::text then
        return new;
    end if;
    raise exception 'a finished % never changes', tg_table_name using errcode = 'restrict_violation';
end
$$;

-- ... and with it, or while it is open, its tasks that have not succeeded become pending as if they had never failed.
create function refuse_change_of_task() returns trigger language plpgsql as $$
declare
    reopened record;
begin
    reopened := old;
    reopened.status := 'pending';
    reopened.failed_attempts := 0;
    reopened.failure := null;
    reopened.reason := null;
    reopened.finished_at := null;
    if old.status in ('failed', 'skipped', 'cancelled') and row_to_json(new)::text = row_to_json(reopened)::text
        and exists (select from cycle where cycle.cycle_id = old.cycle_id and cycle.status = 'open') then
        return new;
    end if;
    raise exception 'a finished % never changes', tg_table_name using errcode = 'restrict_violation';
end
$$;

drop trigger cycle_final on cycle;
create trigger cycle_final before update on cycle for each row
    when (old.status <> 'open') execute function refuse_change_of_cycle();
drop trigger task_final on task;
create trigger task_final before update on task for each row
    when (old.status not in ('pending', 'running', 'paused')) execute function refuse_change_of_task();
