/** Header of requests and responses that names a call in logs and errors. */
export const REQUEST_ID_HEADER = "x-request-id";

/** Header in which monitoring without a session sends a collection's health secret. */
export const HEALTH_SECRET_HEADER = "strongroom-health-secret";

/** `domain` of every google.rpc.ErrorInfo that a Strongroom server makes; proxies make others. */
export const ERROR_DOMAIN = "strongroom";
