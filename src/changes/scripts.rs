//! Scripts that run in Redis: what has to be looked at and done in one go.

use crate::kv::Script;

/// Removes consumers that have gone and hold nothing, and, where the stream (`KEYS[1]`) is longer than `ARGV[2]`, what
/// the group (`ARGV[1]`) is done with. `ARGV[3]`: milliseconds after which a consumer has gone. How many messages are
/// held.
pub(super) static TIDY: Script = Script::new(
    r"
local function fields(flat)
  local found = {}
  for at = 1, #flat, 2 do found[flat[at]] = flat[at + 1] end
  return found
end
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local one = fields(flat)
  if one.pending == 0 and one.idle > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
  end
end
local held = redis.call('XPENDING', KEYS[1], ARGV[1])
if redis.call('XLEN', KEYS[1]) > tonumber(ARGV[2]) then
  local first = held[1] > 0 and held[2]
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local one = fields(flat)
    if one.name == ARGV[1] and not first then first = one['last-delivered-id'] end
  end
  if first then redis.call('XTRIM', KEYS[1], 'MINID', first) end
end
return held[1]
",
);

/// Removes the consumer `ARGV[2]` of the group `ARGV[1]`, unless it holds messages: they would be lost with it.
pub(super) static LEAVE: Script = Script::new(
    r"
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 0
",
);
