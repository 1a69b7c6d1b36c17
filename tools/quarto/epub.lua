-- What an EPUB needs that a site does not: all chapters are one document there.

-- Formulas become MathML. Pandoc drops \tag or stumbles over it, so that "Eq. (MAML-2)"
-- would name a number that is nowhere to be seen; and not every version knows \Bigl.
local function formula(math)
  local text = math.text:gsub("%s*\\tag{([^}]*)}%s*$", "\\qquad\\text{(%1)}")
  text = text:gsub("\\Big(g?[lr])%f[%A]", "\\big%1")
  if text ~= math.text then
    return pandoc.Math(math.mathtype, text)
  end
end

-- `<br>` is HTML, and a page of an EPUB is XML.
local function line_break(raw)
  if raw.format == "html" and raw.text:match("^<br%s*/?>$") then
    return pandoc.LineBreak()
  end
end

-- Quarto marks the beginning of a file by a comment with its name, in JSON, in base64.
local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function decoded(text)
  local bytes, value, bits = {}, 0, 0
  for letter in text:gmatch("[%w+/]") do
    value, bits = value << 6 | (LETTERS:find(letter, 1, true) - 1), bits + 6
    if bits >= 8 then
      bits = bits - 8
      bytes[#bytes + 1] = string.char(value >> bits & 255)
    end
  end
  return table.concat(bytes)
end

local function file_of(block)
  local mark = block.tag == "RawBlock"
    and block.text:match("^%s*<!%-%- quarto%-file%-metadata: (%S+) %-%->%s*$")
  return mark and decoded(mark):match('"bookItemFile":"([^"]*)"')
end

-- The anchor that a heading has in its own chapter: in a document of all chapters the
-- second "Summary" is called summary-1.
local function own_anchor(heading)
  local words = pandoc.text.lower(pandoc.utils.stringify(heading))
  local slug = words:gsub("[^%w%s_\128-\255-]", ""):gsub("%s", "-")
  local base = heading.identifier:match("^(.+)%-%d+$")
  return base == slug and heading.identifier ~= slug and base or heading.identifier
end

-- "../metric/01_prototypes.ipynb", seen from "nbs/optimization/01_maml.ipynb"
local function resolved(path, from)
  local parts = pandoc.List(from:gsub("[^/]*$", "") ~= "" and
    pandoc.path.split((from:gsub("[^/]*$", ""))) or {})
  for _, part in ipairs(pandoc.path.split(path)) do
    if part == ".." then
      parts:remove()
    elseif part ~= "." and part ~= "" then
      parts:insert(part)
    end
  end
  return table.concat(parts:filter(function(p) return p ~= "" and p ~= "." end), "/")
end

-- blocks of a file, until the next mark -> function
local function each_file(blocks, change)
  local file = nil
  return blocks:map(function(block)
    file = file_of(block) or file
    return file and change(file, block) or block
  end)
end

function Pandoc(doc)
  local first, anchors = {}, {}  -- file -> anchor of its title; file -> anchor -> anchor
  each_file(doc.blocks, function(file, block)
    anchors[file] = anchors[file] or {}
    pandoc.Blocks({block}):walk({Header = function(heading)
      local own, known = own_anchor(heading), anchors[file]
      first[file] = first[file] or (heading.level == 1 and heading.identifier or nil)
      local n, name = 0, own
      while known[name] do
        n = n + 1
        name = own .. "-" .. n
      end
      known[name] = heading.identifier
    end})
  end)
  doc.blocks = each_file(doc.blocks, function(file, block)
    return pandoc.Blocks({block}):walk({Link = function(link)
      if link.target:match("^%a[%w+.-]*:") or link.target:match("^//") then
        return nil
      end
      local path, anchor = link.target:match("^([^#]*)#?(.*)$")
      local target = path == "" and file or resolved(path, file)
      if anchors[target] then
        local place = anchor == "" and first[target] or anchors[target][anchor] or anchor
        link.target = "#" .. place
        return link
      end
    end})[1]
  end)
  return doc:walk({Math = formula, RawInline = line_break})
end
