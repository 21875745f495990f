"use strict";
// What all parts of the page share: data, elements, texts, numbers.
var minia = { views: {}, texts: {} };
(function (m) {
  var MOST_KEPT = 300; // scripts of structures and images whose data stay in memory
  var values = new Map(), waiting = {};

  // A script of data/ calls this.
  m.got = function (key, value) { values.set(key, value); };

  // The value of a script, loaded when it is first wanted.
  m.load = function (key) {
    if (values.has(key)) { return Promise.resolve(values.get(key)); }
    if (waiting[key]) { return waiting[key]; }
    waiting[key] = new Promise(function (resolve, reject) {
      var script = document.createElement("script");
      script.src = "data/" + key + ".js";
      script.onload = function () { finish(); resolve(values.get(key)); trim(); };
      script.onerror = function () { finish(); reject(new Error(key)); };
      function finish() { delete waiting[key]; script.remove(); }
      document.head.appendChild(script);
    });
    return waiting[key];
  };
  function trim() {
    var kept = 0;
    Array.from(values.keys()).reverse().forEach(function (key) {
      if (!/^(structure|image|images)-/.test(key)) { return; }
      kept += 1;
      if (kept > MOST_KEPT) { values.delete(key); }
    });
  }

  // An element: el("a.name", {href: "#"}, "text", other elements). Text is never read as HTML.
  m.el = function (kind, attributes) {
    var parts = kind.split(".");
    var made = document.createElement(parts[0]);
    if (parts.length > 1) { made.className = parts.slice(1).join(" "); }
    set(made, attributes);
    for (var i = 2; i < arguments.length; i += 1) { add(made, arguments[i]); }
    return made;
  };
  // A name whose lines may end after its underscores and dashes, not in the middle of a word.
  m.breakable = function (name) {
    return (name.match(/[^_-]*[_-]*/g) || []).map(function (piece, place) { return place ? [m.el("wbr", {}), piece] : piece; });
  };
  m.svg = function (kind, attributes) {
    var made = document.createElementNS("http://www.w3.org/2000/svg", kind);
    Object.keys(attributes || {}).forEach(function (name) { made.setAttribute(name, attributes[name]); });
    for (var i = 2; i < arguments.length; i += 1) { add(made, arguments[i]); }
    return made;
  };
  function set(made, attributes) {
    Object.keys(attributes || {}).forEach(function (name) {
      var value = attributes[name];
      if (value === null || value === undefined || value === false) { return; }
      if (name.slice(0, 2) === "on") { made.addEventListener(name.slice(2), value); }
      else if (name === "style") { Object.assign(made.style, value); }
      else { made.setAttribute(name, value === true ? "" : value); }
    });
  }
  function add(made, child) {
    if (child === null || child === undefined || child === false) { return; }
    if (Array.isArray(child)) { child.forEach(function (each) { add(made, each); }); return; }
    made.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  m.add = add;
  m.clear = function (element) { while (element.firstChild) { element.firstChild.remove(); } return element; };

  // What the browser may keep between visits; a page from disk may not be allowed to.
  m.kept = function (key, value) {
    try {
      if (value === undefined) { return window.localStorage.getItem("minia." + key); }
      window.localStorage.setItem("minia." + key, value);
    } catch (error) { /* then nothing is kept */ }
    return null;
  };

  // A text in the chosen language, with {name}s filled in.
  m.t = function (key, filled) {
    var text = m.texts[m.language][key];
    if (text === undefined) { text = m.texts.en[key]; }
    if (text === undefined) { return key; }
    return text.replace(/\{(\w+)\}/g, function (_, name) { return filled[name]; });
  };
  m.plural = function (count, key) {
    return m.t(key + (count === 1 ? ".one" : ".many"), { n: m.whole(count) });
  };
  m.whole = function (value) { return Number(value).toLocaleString(m.language); };
  m.decimals = function (value, digits) {
    return value === null || value === undefined ? "–" :
      Number(value).toLocaleString(m.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  m.percent = function (value) { return m.decimals(100 * value, value < 0.1 ? 1 : 0) + " %"; };
  m.small = function (value) { // a rate such as q, which may be tiny
    if (value === null || value === undefined) { return "–"; }
    if (value === 0 || value >= 0.001) { return m.decimals(value, 3); }
    if (value < 1e-99) { return "< 1e-99"; }
    return value.toExponential(1);
  };

  // A word with its definition, shown while it is pointed at or has the focus.
  m.term = function (key, text) {
    return m.el("span.term", { tabindex: 0, "data-term": key }, text === undefined ? m.t("name." + key) : text);
  };
  // The same in a list, where a stop for the tabulator at every row would be in the way.
  m.mention = function (key, text) {
    return m.el("span.term", { "data-term": key }, text === undefined ? m.t("name." + key) : text);
  };
  m.fact = function (key, value) {
    return m.el("div", {}, m.el("dt", {}, m.term(key)), m.el("dd", {}, value));
  };
  var tip = document.getElementById("tip");
  m.showTip = function (content, x, y) {
    m.clear(tip);
    add(tip, content);
    tip.hidden = false;
    var box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(x + 12, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18) + "px";
  };
  m.hideTip = function () { tip.hidden = true; };
  function explain(event) {
    var term = event.target.closest ? event.target.closest("[data-term]") : null;
    if (!term) { if (event.type === "mouseover") { m.hideTip(); } return; }
    var box = term.getBoundingClientRect();
    m.showTip(m.t("about." + term.dataset.term), box.left, box.bottom - 12);
    term.setAttribute("aria-describedby", "tip");
  }
  document.addEventListener("mouseover", explain);
  document.addEventListener("focusin", explain);
  document.addEventListener("focusout", m.hideTip);
  document.addEventListener("keydown", function (event) { if (event.key === "Escape") { m.hideTip(); } });

  // A small picture out of a sheet.
  m.sprite = function (sheetName, index, height, label) {
    var sheet = m.overview.sheets[sheetName];
    if (!sheet || index === undefined || index < 0) { return null; }
    var perSheet = sheet.columns * sheet.rows, place = index % perSheet;
    var scale = height / sheet.height, width = sheet.width * scale;
    var attributes = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
    attributes.style = {
      width: width + "px", height: height + "px",
      backgroundImage: 'url("' + m.sheetFile(sheetName, Math.floor(index / perSheet)) + '")',
      backgroundSize: width * sheet.columns + "px auto",
      backgroundPosition: -(place % sheet.columns) * width + "px " + -Math.floor(place / sheet.columns) * height + "px"
    };
    return m.el("span.sprite", attributes);
  };
  m.sheetFile = function (sheetName, number) {
    return "sprites/" + m.overview.sheets[sheetName].name + "_" + String(number).padStart(4, "0") + ".jpg";
  };
  m.pad = function (number, width) { return String(number).padStart(width, "0"); };
  m.copy = function (row) { return "images/image_" + m.pad(row, 6) + ".jpg"; };
  m.imageLink = function (name, row) { return "#image=" + encodeURIComponent(name) + "&row=" + row; };
  m.labelName = function (code) { return code >= 0 ? m.overview.labels[code] : null; };

  // Colours that the colour-blind can tell (Okabe and Ito 2008), then dashes too.
  m.colours = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#4C8DFF", "#FFFFFF"];
  m.dashes = ["", "7 4", "2 4", "10 3 2 3"];
  m.colour = function (number) { return m.colours[number % m.colours.length]; };
  m.dash = function (number) { return m.dashes[Math.floor(number / m.colours.length) % m.dashes.length]; };

  m.say = function (text) { document.getElementById("status").textContent = text; };
  m.download = function (name, text, kind) {
    var address = URL.createObjectURL(new Blob([text], { type: kind }));
    var link = m.el("a", { href: address, download: name });
    document.body.appendChild(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(address); }, 10000);
  };
  // A table as CSV (RFC 4180): every text in quotes.
  m.csv = function (rows) {
    return rows.map(function (row) {
      return row.map(function (cell) {
        if (cell === null || cell === undefined) { return ""; }
        return typeof cell === "number" ? String(cell) : '"' + String(cell).replace(/"/g, '""') + '"';
      }).join(",");
    }).join("\r\n") + "\r\n";
  };
}(minia));
