"use strict";
// The search box: structures by number, labels, and images by a part of their name.
(function (m) {
  var MOST_IMAGES = 30;
  // Right ascension and declination in degrees, of "187.7 12.4", "187.7, +12.4" or "12:30:49.4 +12:23:28".
  m.skyPlace = function (text) {
    var plain = /^(\d{1,3}(?:\.\d+)?)[\s,]+([+-]?\d{1,2}(?:\.\d+)?)$/.exec(text);
    var parted = /^(\d{1,2})[:\sh](\d{1,2})[:\sm](\d{1,2}(?:\.\d+)?)s?[\s,]+([+-]?)(\d{1,2})[:\sd](\d{1,2})[:\sm](\d{1,2}(?:\.\d+)?)s?$/.exec(text);
    if (plain && Number(plain[1]) <= 360 && Math.abs(plain[2]) <= 90) { return [Number(plain[1]), Number(plain[2])]; }
    if (!parted) { return null; }
    var degrees = Number(parted[5]) + parted[6] / 60 + parted[7] / 3600;
    return [15 * (Number(parted[1]) + parted[2] / 60 + parted[3] / 3600), parted[4] === "-" ? -degrees : degrees];
  };
  m.separation = function (ra, dec, otherRa, otherDec) { // degrees, by the haversine
    var r = Math.PI / 180, a = Math.sin((otherDec - dec) * r / 2), b = Math.sin((otherRa - ra) * r / 2);
    return 2 * Math.asin(Math.min(1, Math.sqrt(a * a + Math.cos(dec * r) * Math.cos(otherDec * r) * b * b))) / r;
  };
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
      m.overview.structures.number.forEach(function (structure, i) {
        if (m.nameOf(structure).toLowerCase().indexOf(wanted) >= 0) { offer(m.el("a", { href: "#structure=" + structure }, m.sprite("structures", m.overview.structures.map[i], 32), m.structureName(structure))); }
      });
      m.overview.labels.forEach(function (label, code) {
        if (label.toLowerCase().indexOf(wanted) >= 0 && m.overview.structures.label.indexOf(code) >= 0) {
          offer(m.el("a", { href: "#label=" + encodeURIComponent(label) }, m.el("span.faint", {}, m.t("name.label")), label));
        }
      });
      var place = m.skyPlace(wanted);
      var end = m.el("li", { class: "more faint small" }, m.t("searching"));
      found.appendChild(end);
      if (place) { nearest(place, mine, end, 0, []); } else { images(wanted, mine, end, 0, 0); }
    }
    // The images nearest to a place on the sky.
    function nearest(place, mine, end, number, best) {
      var per = m.overview.namesPerScript;
      if (mine !== turn) { return; }
      if (number * per >= m.overview.numImages) {
        best.forEach(function (each) {
          end.before(m.el("li", {}, m.el("a", { href: m.imageLink(each.name, each.row) }, m.sprite("images", m.copied.get(each.row), 32), each.name, m.el("span.faint", {}, m.t("on the sky", { distance: m.decimals(each.distance * 3600, 1) })))));
        });
        end.textContent = m.plural(best.length, "images");
        return;
      }
      m.load("names-" + m.pad(number, 4)).then(function (value) {
        (value.ra || []).forEach(function (ra, i) {
          if (ra === null) { return; }
          var distance = m.separation(place[0], place[1], ra, value.dec[i]);
          if (best.length < 5 || distance < best[best.length - 1].distance) {
            best.push({ name: value.names[i], row: number * per + i, distance: distance });
            best.sort(function (a, b) { return a.distance - b.distance; });
            best.length = Math.min(5, best.length);
          }
        });
        nearest(place, mine, end, number + 1, best);
      });
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
