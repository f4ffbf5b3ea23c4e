-- The subnet that a publication belongs to: the one that its cycle is pinned to. PostgreSQL 13 SQL.

alter table publication
    -- Both are null for a cycle that read no chain: its publication is local.
    add column genesis text,
    add column netuid integer,
    add constraint publication_subnet check ((genesis is null) = (netuid is null));

-- A publication refuses every change. The lock of this transaction keeps everybody else away meanwhile.
alter table publication disable trigger publication_final;
update publication set genesis = cycle.genesis, netuid = cycle.netuid
from cycle
where cycle.cycle_id = publication.cycle_id and cycle.genesis is not null and cycle.netuid is not null;
alter table publication enable trigger publication_final;

create index publication_latest on publication (netuid, sequence);
create index cycle_subnet on cycle (netuid, cycle_id);

-- The database assigns the subnet and links the chain of each subnet, so that what an older program publishes is assigned, too.
create function assign_publication() returns trigger language plpgsql as $$
begin
    select cycle.genesis, cycle.netuid into new.genesis, new.netuid
    from cycle
    where cycle.cycle_id = new.cycle_id and cycle.genesis is not null and cycle.netuid is not null;
    new.previous_digest := (
        select last.digest from publication last
        where last.genesis is not distinct from new.genesis and last.netuid is not distinct from new.netuid
        order by last.sequence desc limit 1);
    return new;
end
$$;

create trigger publication_assigned before insert on publication for each row execute function assign_publication();
