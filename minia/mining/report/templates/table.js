"use strict";
// A table that can be sorted by its columns and shows so many rows at a time.
(function (m) {
  // columns: [{key, number: bool, value: function(row) -> what to sort by, cell: function(row) -> element or text}]
  m.table = function (columns, rows, options) {
    var shown = options.atFirst || 50, sorted = rows.slice(), order = options.order || null;
    var body = m.el("tbody", {});
    var more = m.el("button", { onclick: function () { shown += 200; fill(); } });
    var heads = columns.map(function (column) {
      var text = column.plain ? m.t("name." + column.key) : m.term(column.key);
      var button = column.value ? m.el("button", { onclick: function () { sort(column); }, "aria-label": m.t("sort by", { what: m.t("name." + column.key) }) }, "↕") : null;
      return m.el("th", { scope: "col", class: column.number ? "number" : null }, text, " ", button);
    });
    function sort(column) {
      order = { key: column.key, down: order && order.key === column.key ? !order.down : !!column.number };
      arrange();
      fill();
    }
    function arrange() {
      if (!order) { return; }
      var column = columns.find(function (each) { return each.key === order.key; });
      columns.forEach(function (each, place) {
        heads[place].setAttribute("aria-sort", each !== column ? "none" : order.down ? "descending" : "ascending");
      });
      sorted.sort(function (a, b) {
        var first = column.value(a), second = column.value(b);
        if (first === null || second === null) { return (first === null) - (second === null); }
        var way = first < second ? -1 : first > second ? 1 : 0;
        return order.down ? -way : way;
      });
    }
    function fill() {
      m.clear(body);
      sorted.slice(0, shown).forEach(function (row) {
        body.appendChild(m.el("tr", options.attributes ? options.attributes(row) : {}, columns.map(function (column) {
          return m.el("td", { class: column.number ? "number" : null }, column.cell(row));
        })));
      });
      more.hidden = sorted.length <= shown;
      more.textContent = m.t("show more", { n: m.whole(sorted.length - shown) });
    }
    arrange();
    fill();
    var caption = options.caption ? m.el("caption", { class: "unseen" }, options.caption) : null;
    return {
      element: m.el("div", {}, m.el("div.scroll", { tabindex: 0, role: "region", "aria-label": options.caption },
        m.el("table", {}, caption, m.el("thead", {}, m.el("tr", {}, heads)), body)), more),
      set: function (others) { sorted = others.slice(); arrange(); fill(); }
    };
  };
}(minia));
