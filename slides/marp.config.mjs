// Everything that a deck needs is in it: no web fonts, no emoji images, formulas drawn while building.
export default {
  html: true,
  themeSet: "theme.css",
  options: { math: "mathjax", emoji: { unicode: false, shortcode: false } },
};
