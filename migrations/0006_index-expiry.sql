-- The sweep looks for entries whose time is over. Entries without an expiry aren't in the index, and a
-- write that leaves it null stays a HOT update.

-- Up Migration

create index if not exists plugin_sidecar_expiry_idx
  on state_schema.plugin_state (plugin_id, expires_at) where expires_at is not null;

-- Down Migration

drop index if exists state_schema.plugin_sidecar_expiry_idx;
