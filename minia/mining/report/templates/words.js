"use strict";
// The visual words: each as patches, with the structures that use it.
(function (m) {
  var AT_A_TIME = 60;
  function entry(words, place) {
    var number = words.numbers[place], used = words.structures[place];
    return m.el("li", { id: "word-" + number }, m.el("a", { href: "#word=" + number }, m.sprite("words", m.wordPlaces.get(number), 48, m.t("word", { n: number })), m.el("div", {}, m.t("word", { n: number }))),
      m.el("div.faint", {}, m.mention("word_images", m.plural(words.images[place], "images")), " · ", m.plural(used.length, "structures")));
  }
  m.views.words = function (main) {
    return m.load("words").then(function (words) {
      var list = m.el("ul.words", {}), shown = 0;
      var more = m.el("button", { onclick: fill });
      function fill() {
        for (var end = Math.min(words.numbers.length, shown + AT_A_TIME); shown < end; shown += 1) { list.appendChild(entry(words, shown)); }
        more.hidden = shown >= words.numbers.length;
        more.textContent = m.t("show more", { n: m.whole(words.numbers.length - shown) });
      }
      fill();
      m.add(main, [m.el("h1", { tabindex: -1 }, m.t("title.all words")), m.el("p", {}, m.t("words.all", { n: m.whole(words.numbers.length), all: m.whole(m.overview.metrics.vocabulary_size) })), list, more]);
    });
  };
  m.views.word = function (main, given) {
    return m.load("words").then(function (words) {
      var number = Number(given), place = words.numbers.indexOf(number);
      main.appendChild(m.el("h1", { tabindex: -1 }, m.t("word", { n: given })));
      if (place < 0) { main.appendChild(m.el("p", {}, m.t("no word"))); return; }
      var picture = m.sprite("words", m.wordPlaces.get(number), Math.min(144, (document.documentElement.clientWidth - 40) / 5), m.t("word", { n: given }));
      m.add(main, [picture, picture ? m.el("p.faint.small", {}, m.t("word.about")) : null,
        m.el("dl.facts", {}, m.fact("word_images", m.whole(words.images[place]))), m.el("h2", {}, m.t("title.word structures")),
        m.el("ul.held", {}, words.structures[place].map(function (structure) { return m.el("li", {}, m.structureLink(structure), m.el("span.faint", {}, m.plural(m.overview.structures.images[m.placeOf(structure)], "images"))); }))]);
    });
  };
}(minia));
