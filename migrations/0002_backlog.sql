-- Where a partition ends, as whoever holds it has told last: when it was taken, and while there is a backlog and an index waits for
-- it to be written. Other instances look at this before they build the index. Null: there is no backlog.
alter table embedsink.offsets add column end_offset bigint;
-- When it was told other than with a take or a write, which both set updated_at.
alter table embedsink.offsets add column told_at timestamptz;
