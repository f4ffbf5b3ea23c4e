-- How many episodes a cycle had and how many were scored when it ended: they are many, age out, and lists of cycles want to say it
-- without counting. PostgreSQL 13 SQL.

create table episode_count (
    cycle_id uuid not null references cycle on delete cascade,
    -- Under which it ended. One that was opened again has another, and is counted anew.
    epoch bigint not null,
    planned bigint not null,
    scored bigint not null check (scored between 0 and planned),
    primary key (cycle_id, epoch)
);

create trigger episode_count_final before update on episode_count for each row execute function refuse_change();

insert into episode_count
select cycle_id, epoch, count(*), count(*) filter (where outcome is not null and outcome <> 'infra_fault')
from episode join cycle using (cycle_id)
where status <> 'open' and not exists (select from aged_out where aged_out.cycle_id = cycle.cycle_id)
group by cycle_id, epoch;
