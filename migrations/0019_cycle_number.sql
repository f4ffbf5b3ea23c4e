-- The number of a cycle, for people and clients: 1, 2, ... PostgreSQL 13 SQL.

alter table cycle add column number bigint;

-- Cycles that have ended refuse every change. The lock of this transaction keeps everybody else away meanwhile.
alter table cycle disable trigger cycle_final;
update cycle set number = numbered.number
from (select cycle_id, row_number() over (order by created_at, cycle_id) as number from cycle) numbered
where cycle.cycle_id = numbered.cycle_id;
alter table cycle enable trigger cycle_final;

alter table cycle
    alter column number set not null,
    add constraint cycle_number unique (number),
    add constraint cycle_number_positive check (number > 0);

-- The database numbers cycles, so that those of an older program are numbered too. Transactions that create cycles take turns
-- under the lock of `src/store/turn.rs`: a sequence would skip the numbers of those that are rolled back.
create function number_cycle() returns trigger language plpgsql as $$
begin
    if new.number is null then
        perform pg_advisory_xact_lock(125822718407797);
        new.number := coalesce((select max(number) from cycle), 0) + 1;
    end if;
    return new;
end
$$;

create trigger cycle_numbered before insert on cycle for each row execute function number_cycle();
