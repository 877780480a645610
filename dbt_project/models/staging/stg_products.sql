with
    raw_products as (select * from {{ source("raw", "raw_products") }}),

    final as (
        select
            sku as product_id,
            name as product_name,
            type as product_type,
            description as product_description,
            {{ cents_to_dollars("price") }} as product_price,
            case when type = 'jaffle' then 1 else 0 end as is_food_item,
            case when type = 'beverage' then 1 else 0 end as is_drink_item
        from raw_products
    )

select *
from final
