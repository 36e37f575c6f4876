-- SPDX-License-Identifier: GPL-2.0
-- Every fourth request asks for /v2.
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", n % 4 == 0 and "/v2/item" or "/item")
end
