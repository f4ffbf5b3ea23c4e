-- Cycles by the block that they are pinned to: since when a vector of that block is as it is. PostgreSQL 13 SQL.
create index cycle_block on cycle (block) where block is not null;
