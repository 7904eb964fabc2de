-- Asks for a path nobody asked for before: /RUN/1, /RUN/2, ...
local run, number = "0", 0

function init(args)
  run = args[1] or run
end

function request()
  number = number + 1
  return wrk.format("GET", "/" .. run .. "/" .. number)
end
