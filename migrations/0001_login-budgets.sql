CREATE TABLE "login_budgets" (
	"holder" text PRIMARY KEY NOT NULL,
	"full_at_ms" double precision NOT NULL
);
--> statement-breakpoint
CREATE INDEX "login_budgets_full" ON "login_budgets" USING btree ("full_at_ms");