import { key } from "/static/api.js";

const page = document.getElementById("page");
page.id = "swagger-ui";
page.replaceChildren();

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  defaultModelRendering: "model",
  tryItOutEnabled: true,
  displayRequestDuration: true,
  filter: false,
  validatorUrl: null,
  requestInterceptor: (request) => {
    if (key() && !request.headers.Authorization) request.headers.Authorization = `Bearer ${key()}`;
    return request;
  },
});
