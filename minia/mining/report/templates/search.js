"use strict";
// The search box: structures by number, labels, and images by a part of their name.
(function (m) {
  var MOST_IMAGES = 30;
  m.search = function (form) {
    var found = m.el("ul", { id: "found", "aria-label": m.t("found"), hidden: true });
    var turn = 0;
    var input = m.el("input", { type: "search", id: "query", placeholder: m.t("search"), "aria-label": m.t("search"), autocomplete: "off",
      oninput: function () { look(); },
      onkeydown: function (event) {
        if (event.key === "Escape") { input.value = ""; close(); }
        if (event.key === "ArrowDown") { var first = found.querySelector("a"); if (first) { first.focus(); event.preventDefault(); } }
      } });
    m.clear(form);
    m.add(form, [input, found]);
    form.onsubmit = function (event) {
      var first = found.querySelector("a");
      event.preventDefault();
      if (first) { first.click(); }
    };
    found.addEventListener("keydown", function (event) {
      var links = Array.from(found.querySelectorAll("a")), at = links.indexOf(document.activeElement);
      if (event.key === "ArrowDown" && links[at + 1]) { links[at + 1].focus(); event.preventDefault(); }
      if (event.key === "ArrowUp") { (links[at - 1] || input).focus(); event.preventDefault(); }
      if (event.key === "Escape") { close(); input.focus(); }
    });
    found.addEventListener("click", function (event) { if (event.target.closest("a")) { input.value = ""; close(); } });
    document.addEventListener("click", function (event) { if (!form.contains(event.target)) { close(); } });
    function close() { turn += 1; found.hidden = true; }
    function offer(link) { found.appendChild(m.el("li", {}, link)); }
    function look() {
      var wanted = input.value.trim().toLowerCase(), mine = turn += 1;
      m.clear(found);
      found.hidden = !wanted;
      if (!wanted) { return; }
      var number = /^(?:\D*\s)?(\d+)$/.exec(wanted);
      if (number && m.placeOf(Number(number[1])) !== undefined) {
        var structure = Number(number[1]);
        offer(m.el("a", { href: "#structure=" + structure }, m.sprite("structures", m.overview.structures.map[m.placeOf(structure)], 32), m.structureName(structure)));
      }
      m.overview.labels.forEach(function (label, code) {
        if (label.toLowerCase().indexOf(wanted) >= 0 && m.overview.structures.label.indexOf(code) >= 0) {
          offer(m.el("a", { href: "#label=" + encodeURIComponent(label) }, m.el("span.faint", {}, m.t("name.label")), label));
        }
      });
      var end = m.el("li", { class: "more faint small" }, m.t("searching"));
      found.appendChild(end);
      images(wanted, mine, end, 0, 0);
    }
    // All scripts of names in turn; the rest of the page stays responsive between them.
    function images(wanted, mine, end, number, hits) {
      var per = m.overview.namesPerScript;
      if (mine !== turn) { return; }
      if (number * per >= m.overview.numImages) {
        end.textContent = m.plural(hits, "images") + (hits > MOST_IMAGES ? m.t("first listed", { n: MOST_IMAGES }) : "");
        m.say(end.textContent);
        return;
      }
      m.load("names-" + m.pad(number, 4)).then(function (value) {
        if (mine !== turn) { return; }
        for (var i = 0; i < value.names.length; i += 1) {
          if (value.names[i].toLowerCase().indexOf(wanted) < 0) { continue; }
          hits += 1;
          if (hits > MOST_IMAGES) { continue; }
          var row = number * per + i, label = m.labelName(value.labels[i]);
          end.before(m.el("li", {}, m.el("a", { href: m.imageLink(value.names[i], row) }, m.sprite("images", m.copied.get(row), 32), value.names[i], label === null ? null : m.el("span.faint", {}, label))));
        }
        images(wanted, mine, end, number + 1, hits);
      });
    }
    return input;
  };
}(minia));
