ALTER TABLE "uploads" ADD COLUMN "usual_size" bigint;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "usual_size" bigint;--> statement-breakpoint
ALTER TABLE "versions" ADD COLUMN "confirmed_at" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "versions_begun" ON "versions" USING btree ("collection_id","begun_at");