// Swagger UI 4, the newest there is a bundle of, refuses OpenAPI 3.1, but shows what we use of it.
"use strict";
fetch("/schema/openapi.json")
  .then((answer) => answer.json())
  .then((spec) => {
    SwaggerUIBundle({
      spec: { ...spec, openapi: "3.0.3" },
      dom_id: "#docs",
      deepLinking: true,
      presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
    });
  });
