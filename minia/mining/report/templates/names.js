"use strict";
// Names that the reader gives to structures: kept in the browser, saved and opened as JSON.
(function (m) {
  var names = {};
  function key() { return "names." + m.overview.id; }
  m.readNames = function () {
    try { names = clean(JSON.parse(m.kept(key()) || "null") || m.overview.names); } catch (error) { names = clean(m.overview.names); }
  };
  function clean(given) {
    var found = {};
    Object.keys(given || {}).forEach(function (number) {
      if (/^\d+$/.test(number) && typeof given[number] === "string" && given[number].trim()) { found[number] = given[number].trim().slice(0, 200); }
    });
    return found;
  }
  m.nameOf = function (number) { return names[number] || ""; };
  m.structureName = function (number) {
    return m.t("structure", { n: number }) + (names[number] ? ": " + names[number] : "");
  };
  m.setName = function (number, name) {
    names[number] = name;
    names = clean(names);
    m.kept(key(), JSON.stringify(names));
  };
  m.saveNames = function () {
    m.download("structure_names.json", JSON.stringify({ report: m.overview.id, names: names }, null, 2) + "\n", "application/json");
  };
  m.openNames = function (file, done) {
    file.text().then(function (text) {
      var given = JSON.parse(text);
      if (given.report !== m.overview.id) { throw new Error("report"); }
      names = Object.assign(names, clean(given.names));
      m.kept(key(), JSON.stringify(names));
      done(null);
    }).catch(done);
  };
}(minia));
