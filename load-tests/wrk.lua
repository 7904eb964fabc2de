-- METHOD PATH BODY KEYS: what wrk asks for. `{}` in PATH is a number, a new one each time or one of KEYS in turn;
-- BODY is so many bytes.
local method, before, after, body, keys, number = "GET", "/", nil, nil, 0, 0

function init(args)
  method, keys = args[1], tonumber(args[4])
  local at = args[2]:find("{}", 1, true)
  if at then
    before, after = args[2]:sub(1, at - 1), args[2]:sub(at + 2)
  else
    before = args[2]
  end
  if tonumber(args[3]) > 0 then
    body = string.rep("x", tonumber(args[3]))
  end
end

function request()
  local path = before
  if after then
    number = number + 1
    if keys > 0 and number >= keys then number = 0 end
    path = before .. number .. after
  end
  return wrk.format(method, path, nil, body)
end
