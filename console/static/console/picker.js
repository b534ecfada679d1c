// A picker preselects no search result, so that Enter never chooses a row that nobody pointed at.
// The arrow keys and the mouse choose; so does Enter if there is only one result.
"use strict";

(() => {
  const jQuery = window.django && window.django.jQuery;
  if (!jQuery || !jQuery.fn.select2) return;
  const results = jQuery.fn.select2.amd.require("select2/results");
  results.prototype.highlightFirstItem = function () {
    const options = this.$results.find(".select2-results__option[aria-selected]");
    const chosen = options.filter("[aria-selected=true]");
    if (chosen.length > 0) chosen.first().trigger("mouseenter");
    else if (options.length === 1) options.trigger("mouseenter");
    this.ensureHighlightVisible();
  };
})();
